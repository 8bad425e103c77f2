package smpptest

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"zvonok/gateway/smpp"
)

// GatewayConfig says how a [Gateway] binds.
type GatewayConfig struct {
	OperatorConfig

	Address  string // of the server
	TLS      *tls.Config
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	SystemID string
	Password string
	Type     smpp.BindType
}

// Gateway is an operator that binds to a server, the way operators connect
// their SMS and USSD gateways to the systems of others. What an SMSC sends as
// deliver_sm it sends as submit_sm. It is made by [Connect].
type Gateway struct {
	*Operator

	cfg GatewayConfig

	mu    sync.Mutex
	binds []*smpp.Session
}

// Connect binds to a server. The gateway must be closed.
func Connect(ctx context.Context, cfg GatewayConfig) (*Gateway, error) {
	g := &Gateway{Operator: newOperator(cfg.OperatorConfig, true), cfg: cfg}
	g.sessions = g.Sessions
	if err := g.Bind(ctx); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// Bind makes one more bind.
func (g *Gateway) Bind(ctx context.Context) error {
	s, err := smpp.Dial(ctx, smpp.ClientConfig{
		Address:  g.cfg.Address,
		TLS:      g.cfg.TLS,
		Dial:     g.dial,
		Type:     g.cfg.Type,
		SystemID: g.cfg.SystemID,
		Password: g.cfg.Password,
		Session:  g.sessionConfig(),
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.binds = append(g.binds, s)
	return nil
}

// dial puts a line on the connection, unless what passes over it is TLS, which
// can be neither recorded nor tampered with.
func (g *Gateway) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dial := g.cfg.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if g.cfg.TLS != nil {
		return conn, nil
	}
	return g.lines.wrap(conn), nil
}

// Sessions returns the binds that live.
func (g *Gateway) Sessions(string) []*smpp.Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	var alive []*smpp.Session
	for _, s := range g.binds {
		select {
		case <-s.Done():
		default:
			alive = append(alive, s)
		}
	}
	g.binds = alive
	return append([]*smpp.Session(nil), alive...)
}

// Close unbinds, waits for answers under way as long as ctx allows, and ends
// the gateway.
func (g *Gateway) Close(ctx context.Context) error {
	g.cancel()
	var err error
	for _, s := range g.Sessions("") {
		if closeErr := s.Close(ctx); err == nil {
			err = closeErr
		}
	}
	g.lines.closeAll()
	g.close()
	return err
}
