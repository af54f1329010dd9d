"""Every command of the command line, as data: words, where its code is, one line of help."""

from typing import Final

from linkspan.core.cli.command import Row

_CLI: Final = "linkspan.core.cli"
_DAEMON: Final = "linkspan.core.daemon"
_CONTAINERS: Final = "Containers"
_IMAGES: Final = "Images"
_SERVICES: Final = "Services"
_MACHINE: Final = "This machine"

_TWICE: Final = (
    # The short words, as in Docker, and the noun's own; where the code is; help; section.
    ("run", "container run", "run:run", "Create and start a container", _CONTAINERS),
    ("ps", "container ls", "container:ls", "List containers", _CONTAINERS),
    ("logs", "container logs", "logs:logs", "Show what a container wrote", _CONTAINERS),
    ("exec", "container exec", "run:exec_", "Run a command in a running container", _CONTAINERS),
    ("attach", "container attach", "run:attach", "Join a container's streams", _CONTAINERS),
    ("create", "container create", "run:create", "Create without starting it", _CONTAINERS),
    ("start", "container start", "run:start", "Start containers", _CONTAINERS),
    ("stop", "container stop", "container:stop", "Stop containers", _CONTAINERS),
    ("restart", "container restart", "container:restart", "Stop and start them", _CONTAINERS),
    ("kill", "container kill", "container:kill", "Send a signal to containers", _CONTAINERS),
    ("pause", "container pause", "container_change:pause", "Freeze containers", _CONTAINERS),
    ("unpause", "container unpause", "container_change:unpause", "Thaw containers", _CONTAINERS),
    ("wait", "container wait", "container:wait", "Wait until containers stop", _CONTAINERS),
    ("rm", "container rm", "container:rm", "Remove containers", _CONTAINERS),
    ("stats", "container stats", "stats:stats", "Show what containers use", _CONTAINERS),
    ("top", "container top", "container_facts:top", "Show a container's processes", _CONTAINERS),
    ("port", "container port", "container_facts:port", "Show published ports", _CONTAINERS),
    ("cp", "container cp", "copy:cp", "Copy files out of or into a container", _CONTAINERS),
    ("diff", "container diff", "container_facts:diff", "Show changed files", _CONTAINERS),
    ("export", "container export", "image_files:export", "Write its file system", _CONTAINERS),
    ("commit", "container commit", "image_files:commit", "Make an image of it", _CONTAINERS),
    ("rename", "container rename", "container_change:rename", "Give another name", _CONTAINERS),
    ("update", "container update", "container_change:update", "Change limits", _CONTAINERS),
    ("images", "image ls", "image:ls", "List images", _IMAGES),
    ("pull", "image pull", "image:pull", "Get an image from its registry", _IMAGES),
    ("push", "image push", "image:push", "Send an image to its registry", _IMAGES),
    ("build", "image build", "build:build", "Build an image from a Dockerfile", _IMAGES),
    ("tag", "image tag", "image:tag", "Give an image one more name", _IMAGES),
    ("rmi", "image rm", "image:rm", "Remove images", _IMAGES),
    ("history", "image history", "image_facts:history", "Show how it was made", _IMAGES),
    ("save", "image save", "image_files:save", "Write images as an archive", _IMAGES),
    ("load", "image load", "image_files:load", "Read images from an archive", _IMAGES),
    ("import", "image import", "image_files:import_", "Make one of a file system", _IMAGES),
    ("info", "system info", "system:info", "Show the daemon and its drivers", _MACHINE),
    ("events", "system events", "system:events", "Show what happens", _MACHINE),
)

_ONCE: Final = (
    Row("inspect", f"{_CLI}.inspect:inspect", "Show everything about an object", _CONTAINERS),
    Row("search", f"{_CLI}.image_facts:search", "Search a registry for images", _IMAGES),
    Row("login", f"{_CLI}.login:login", "Log in to a registry", _IMAGES),
    Row("logout", f"{_CLI}.login:logout", "Forget the login to a registry", _IMAGES),
    Row("container inspect", f"{_CLI}.inspect:container", "Show everything about containers"),
    Row("container prune", f"{_CLI}.prune:container", "Remove all that do not run"),
    Row("image inspect", f"{_CLI}.inspect:image", "Show everything about images"),
    Row("image prune", f"{_CLI}.prune:image", "Remove images that nothing needs"),
    Row("builder prune", f"{_CLI}.prune:builder", "Remove the builder's cache"),
    Row("network ls", f"{_CLI}.network:ls", "List networks"),
    Row("network create", f"{_CLI}.network:create", "Create a network"),
    Row("network inspect", f"{_CLI}.inspect:network", "Show everything about networks"),
    Row("network connect", f"{_CLI}.network:connect", "Join a container to a network"),
    Row("network disconnect", f"{_CLI}.network:disconnect", "Take a container out of a network"),
    Row("network rm", f"{_CLI}.network:rm", "Remove networks"),
    Row("network prune", f"{_CLI}.prune:network", "Remove networks that nothing uses"),
    Row("volume ls", f"{_CLI}.volume:ls", "List volumes"),
    Row("volume create", f"{_CLI}.volume:create", "Create a volume"),
    Row("volume inspect", f"{_CLI}.inspect:volume", "Show everything about volumes"),
    Row("volume rm", f"{_CLI}.volume:rm", "Remove volumes"),
    Row("volume prune", f"{_CLI}.prune:volume", "Remove volumes that no container has"),
    Row("system df", f"{_CLI}.disk_usage:df", "Show what takes how much room"),
    Row("system prune", f"{_CLI}.prune:system", "Remove everything that nothing needs"),
    Row("service create", f"{_CLI}.service_change:create", "Create a service", _SERVICES),
    Row("service ls", f"{_CLI}.service:ls", "List services", _SERVICES),
    Row("service ps", f"{_CLI}.service:ps", "List the tasks of services", _SERVICES),
    Row("service inspect", f"{_CLI}.inspect:service", "Show everything about services", _SERVICES),
    Row("service scale", f"{_CLI}.service_change:scale", "Change the number of tasks", _SERVICES),
    Row("service update", f"{_CLI}.service_change:update", "Change a service", _SERVICES),
    Row("service rollback", f"{_CLI}.service_change:rollback", "Undo the last update", _SERVICES),
    Row("service rm", f"{_CLI}.service:rm", "Remove services", _SERVICES),
    Row("secret ls", f"{_CLI}.objects:secret_ls", "List secrets", _SERVICES),
    Row("secret create", f"{_CLI}.objects:secret_create", "Create a secret", _SERVICES),
    Row("secret inspect", f"{_CLI}.inspect:secret", "Show all but the value", _SERVICES),
    Row("secret rm", f"{_CLI}.objects:secret_rm", "Remove secrets", _SERVICES),
    Row("swarm init", f"{_CLI}.swarm:init", "Make this machine a cluster of one", _SERVICES),
    Row("swarm leave", f"{_CLI}.swarm:leave", "Leave the cluster", _SERVICES),
    Row("node ls", f"{_CLI}.swarm:node_ls", "List the machines of the cluster", _SERVICES),
    Row("node inspect", f"{_CLI}.inspect:node", "Show everything about nodes", _SERVICES),
    Row("doctor", f"{_CLI}.doctor:doctor", "Check this machine, say what to install", _MACHINE),
    Row(
        "explain", f"{_CLI}.explain:explain", "Say what an error means and how to mend it", _MACHINE
    ),
    Row("version", f"{_CLI}.system:version", "Show versions of client and daemon", _MACHINE),
    Row("daemon run", f"{_DAEMON}.cli:run", "Run the daemon in the foreground", _MACHINE),
    Row("daemon start", f"{_DAEMON}.cli:start", "Start the daemon", _MACHINE),
    Row("daemon stop", f"{_DAEMON}.cli:stop", "Stop the daemon", _MACHINE),
    Row("daemon status", f"{_DAEMON}.cli:status", "Say how the daemon is", _MACHINE),
    Row("plugin ls", f"{_CLI}.plugin:ls", "List plugins and what they provide", _MACHINE),
    Row("plugin show", f"{_CLI}.plugin:show", "Show one plugin", _MACHINE),
    Row("config show", f"{_CLI}.config:show", "Show settings and where they came from", _MACHINE),
    Row("config check", f"{_CLI}.config:check", "Find what is wrong in the config", _MACHINE),
    Row("config default", f"{_CLI}.config:default", "Print a commented config file", _MACHINE),
    Row("config ls", f"{_CLI}.objects:config_ls", "List files for services", _SERVICES),
    Row("config create", f"{_CLI}.objects:config_create", "Create a file for services", _SERVICES),
    Row("config inspect", f"{_CLI}.inspect:config", "Show files for services", _SERVICES),
    Row("config rm", f"{_CLI}.objects:config_rm", "Remove files for services", _SERVICES),
    Row("completion", f"{_CLI}.completion:completion", "Print the shell's completion", _MACHINE),
)

ROWS: Final = (
    *(Row(word, f"{_CLI}.{run}", text, section) for word, _, run, text, section in _TWICE),
    *(Row(words, f"{_CLI}.{run}", text) for _, words, run, text, _ in _TWICE),
    *_ONCE,
)
