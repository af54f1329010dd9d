# What testcontainers' reaper does, over the daemon's socket: who is connected says which containers are
# its own, a filter a line; when nobody is connected any more they are removed, and the reaper ends.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;

sub ask {
    my ($method, $path) = @_;
    my $daemon = IO::Socket::UNIX->new(Peer => '/var/run/docker.sock') or die "socket: $!\n";
    print $daemon "$method $path HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
    $daemon->flush;
    return join '', <$daemon>;
}

my $door = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die "door: $!\n";
my $ready = IO::Select->new($door);
my (%filters, $seen);
$| = 1;
print "reaper Started!\n";
until ($seen && $ready->count == 1) {
    for my $socket ($ready->can_read) {
        if ($socket == $door) {
            $ready->add(scalar $door->accept);
        } elsif (sysread $socket, my $text, 4096) {
            $seen = 1;
            $filters{$_} = 1 for $text =~ /^label=([\w.=-]+)/mg;
            syswrite $socket, "ACK\n";
        } else {
            $ready->remove($socket);
        }
    }
}
for my $label (keys %filters) {
    my $found = ask 'GET', "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22$label%22%5D%7D";
    ask 'DELETE', "/containers/$_?force=1&v=1" for $found =~ /"Id": ?"([0-9a-f]{64})"/g;
}
