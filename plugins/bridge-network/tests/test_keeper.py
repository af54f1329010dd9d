"""The keeper's loop: what goes wrong with one connection is nothing to the others."""

import socket

from linkspan.plugins.bridge_network import keeper


def ready_pair():
    """A socket with something to read, and its other end."""
    here, there = socket.socketpair()
    there.send(b"x")
    return here, there


def test_a_socket_that_was_closed_in_the_same_turn_is_passed_over():
    loop = keeper._Loop()
    (one, first), (two, second) = ready_pair(), ready_pair()
    handled = []

    def close_both(sock, mask):
        handled.append(sock)
        for each in (one, two):
            loop.forget(each)
            each.close()

    loop.watch(one, keeper.READ, close_both)
    loop.watch(two, keeper.READ, close_both)
    loop.turn(5)
    assert len(handled) == 1
    first.close()
    second.close()
    loop._selector.close()


def test_an_unforeseen_fault_ends_one_connection_only():
    loop = keeper._Loop()
    (one, first), (two, second) = ready_pair(), ready_pair()
    handled = []

    def fail(sock, mask):
        raise KeyError("unforeseen")

    loop.watch(one, keeper.READ, fail)
    loop.watch(two, keeper.READ, lambda sock, mask: handled.append(sock.recv(1)))
    loop.turn(5)
    loop.turn(0)
    assert handled == [b"x"]
    assert one.fileno() < 0
    for each in (first, two, second):
        each.close()
    loop._selector.close()


def test_relayed_connections_end_from_both_sides_at_once():
    loop = keeper._Loop()
    server = socket.create_server(("127.0.0.1", 0))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    relay = keeper._Stream(loop, listener, server.getsockname())
    for _ in range(20):
        client = socket.create_connection(listener.getsockname())
        loop.turn(5)
        served, _ = server.accept()
        loop.turn(5)
        client.close()
        served.close()
        for _ in range(4):
            loop.turn(0.01)
    assert len(loop._selector.get_map()) == 1, "the listener alone"
    relay.close()
    for each in (server, listener):
        each.close()
    loop._selector.close()
