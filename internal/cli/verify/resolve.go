package verify

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// Addresses says which address to connect to, in place of what DNS says. Its keys are HOST:PORT, or
// *:PORT for all other hosts.
type Addresses map[string]string

// ParseAddresses reads texts of the form HOST:PORT:ADDRESS, as curl's --resolve has them.
func ParseAddresses(texts []string) (Addresses, error) {
	addresses := Addresses{}
	for _, text := range texts {
		host, rest, _ := strings.Cut(text, ":")
		port, address, _ := strings.Cut(rest, ":")
		number, err := strconv.ParseUint(port, 10, 16)
		if host == "" || err != nil || number == 0 {
			return nil, fmt.Errorf("--resolve %s does not have the form HOST:PORT:ADDRESS, for example www.example.com:443:192.0.2.1", text)
		}
		address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		if _, err := netip.ParseAddr(address); err != nil {
			return nil, fmt.Errorf("--resolve %s has no IP address at its end: %q is none", text, address)
		}
		key := target.NormalizeHost(host) + ":" + port
		if _, isGiven := addresses[key]; isGiven {
			return nil, fmt.Errorf("--resolve has two addresses for %s: give one, and run verify once for each address", key)
		}
		addresses[key] = net.JoinHostPort(address, port)
	}
	return addresses, nil
}

// dial connects to HOST:PORT. URLs come from tasks, which others write, and this machine may reach what
// they do not. So dial refuses an address that is not public, unless Addresses has it.
func (a Addresses) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	host = target.NormalizeHost(host)
	for _, key := range []string{host + ":" + port, "*:" + port} {
		if address, isGiven := a[key]; isGiven {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
	dialer := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error { // after DNS has answered
		to, err := netip.ParseAddrPort(address)
		if err == nil && !isPublic(to.Addr()) {
			err = fmt.Errorf("this is not a public address; --resolve=%s:%s:%s allows it", host, port, to.Addr())
		}
		return err
	}}
	return dialer.DialContext(ctx, network, hostPort)
}

// sharedAddresses are those behind a carrier's NAT (RFC 6598). Overlay networks and clouds use them for
// internal services.
var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")

// isPublic reports whether an address is one of the public Internet: not of this machine, a link, a
// private network or a group.
func isPublic(address netip.Addr) bool {
	address = address.Unmap()
	return address.IsGlobalUnicast() && !address.IsPrivate() && !sharedAddresses.Contains(address)
}
