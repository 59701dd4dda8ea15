package verify

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
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
		addresses[strings.ToLower(host)+":"+port] = net.JoinHostPort(address, port)
	}
	return addresses, nil
}

// dial connects to HOST:PORT.
func (a Addresses) dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{strings.ToLower(host) + ":" + port, "*:" + port} {
		if address, isGiven := a[key]; isGiven {
			hostPort = address
			break
		}
	}
	return new(net.Dialer).DialContext(ctx, network, hostPort)
}
