package smpptest

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// Loop is a listener whose connections are pipes within the process. It needs
// no network, so that sessions over it can live in a testing/synctest bubble.
type Loop struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	dialled atomic.Int64
}

// NewLoop makes a loop.
func NewLoop() *Loop {
	return &Loop{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept waits for a connection.
func (l *Loop) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *Loop) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is the address of the listener's end, the same for every loop.
func (l *Loop) Addr() net.Addr { return loopAddr(0) }

// DialContext connects to the loop; network and address do not matter. It fits
// [smpp.ClientConfig].
func (l *Loop) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	number := loopAddr(l.dialled.Add(1))
	select {
	case l.conns <- loopConn{far, loopAddr(0), number}:
		return loopConn{near, number, loopAddr(0)}, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	near.Close()
	far.Close()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, net.ErrClosed
}

type loopConn struct {
	net.Conn
	local, remote loopAddr
}

func (c loopConn) LocalAddr() net.Addr  { return c.local }
func (c loopConn) RemoteAddr() net.Addr { return c.remote }

// loopAddr is the number of a connection, zero at the end of the listener.
type loopAddr int64

func (loopAddr) Network() string  { return "loop" }
func (a loopAddr) String() string { return "loop:" + strconv.FormatInt(int64(a), 10) }
