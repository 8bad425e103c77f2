package pg

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
)

// Fault row 7: a server that vanishes without a word.
func TestAConnectionToAServerThatVanishesIsGivenUp(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]struct{ level, name, want int }{
		"unconfirmed data, in milliseconds": {syscall.IPPROTO_TCP, tcpUserTimeout, 20_000},
		"keep-alive":                        {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"idle seconds before a probe":       {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 10},
		"seconds between probes":            {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 5},
		"probes":                            {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 2},
	} {
		var got int
		var optionErr error
		if err := raw.Control(func(fd uintptr) {
			got, optionErr = syscall.GetsockoptInt(int(fd), option.level, option.name)
		}); err != nil {
			t.Fatal(err)
		}
		if got != option.want || optionErr != nil {
			t.Errorf("%s: %d, %v; want %d", name, got, optionErr, option.want)
		}
	}
}

func TestAUnixSocketIsDialledToo(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := dial(t.Context(), "unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
