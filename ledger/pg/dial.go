package pg

import (
	"context"
	"net"
	"strings"
	"syscall"
	"time"
)

// tcpUserTimeout is the Linux socket option TCP_USER_TIMEOUT (tcp(7)), which
// package syscall does not name.
const tcpUserTimeout = 0x12

// A server that vanished without a word, behind a cut cable or a firewall that
// forgot us, is noticed in this time: on a busy connection by data that nobody
// confirms, on an idle one by keep-alive probes.
const (
	unconfirmedLimit = 20 * time.Second
	keepAliveIdle    = 10 * time.Second
	keepAliveEvery   = 5 * time.Second
	keepAliveProbes  = 2
)

// dial connects to the server so that its silent end is noticed. The limits on
// the server's side cannot help there: it is the answer that never comes.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveIdle, Interval: keepAliveEvery, Count: keepAliveProbes,
		},
		Control: func(network, _ string, conn syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var set error
			if err := conn.Control(func(fd uintptr) {
				set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout,
					int(unconfirmedLimit.Milliseconds()))
			}); err != nil {
				return err
			}
			return set
		},
	}
	return dialer.DialContext(ctx, network, address)
}
