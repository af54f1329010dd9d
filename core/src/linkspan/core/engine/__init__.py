"""The lifecycle of containers, images, networks and volumes, over the drivers."""
