package smpptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"zvonok/gateway/smpp"
)

// Config says how to set up an [SMSC].
type Config struct {
	OperatorConfig

	// Address is where to listen, a free port of 127.0.0.1 by default.
	Address string

	// Listener, if not nil, is used instead of Address, for example a [Loop].
	Listener net.Listener

	// TLS, if not nil, makes every connection a TLS one.
	TLS *tls.Config

	// SystemID and Password are what an ESME must bind with. An empty SystemID
	// lets everybody in.
	SystemID string
	Password string

	// MaxBinds is how many binds an account may have, 100 by default.
	MaxBinds int

	// Rate is the limit of the account as the server enforces it, in messages a
	// second. It is cheaper than [Behaviour.Rate] and not counted in [Stats].
	Rate float64
}

const defaultMaxBinds = 100

// SMSC is an operator that is bound to. It is made by [Start].
type SMSC struct {
	*Operator

	server  *smpp.Server
	address net.Addr
	binds   atomic.Int64
	served  chan error
}

// Start sets up an SMSC. It must be closed.
func Start(cfg Config) (*SMSC, error) {
	listener := cfg.Listener
	if listener == nil {
		address := cfg.Address
		if address == "" {
			address = "127.0.0.1:0"
		}
		var err error
		if listener, err = net.Listen("tcp", address); err != nil {
			return nil, fmt.Errorf("start SMSC: %w", err)
		}
	}
	if cfg.TLS != nil {
		listener = tls.NewListener(listener, cfg.TLS)
	}
	if cfg.MaxBinds == 0 {
		cfg.MaxBinds = defaultMaxBinds
	}
	smsc := &SMSC{
		Operator: newOperator(cfg.OperatorConfig, false),
		address:  listener.Addr(),
		served:   make(chan error, 1),
	}
	smsc.server = smpp.NewServer(smpp.ServerConfig{
		SystemID: "smpptest",
		Authenticate: func(_ context.Context, r smpp.BindRequest) (smpp.Account, smpp.Status) {
			return smsc.authenticate(cfg, r)
		},
		Session:              smsc.sessionConfig(),
		Log:                  smsc.log,
		WrongLoginDelay:      time.Millisecond, // nobody attacks a test
		MaxConnsPerAddress:   10_000,
		MaxUnboundPerAddress: 10_000,
	})
	smsc.sessions = smsc.server.Sessions
	go func() { smsc.served <- smsc.server.Serve(lineListener{listener, smsc.lines}) }()
	return smsc, nil
}

func (smsc *SMSC) authenticate(cfg Config, r smpp.BindRequest) (smpp.Account, smpp.Status) {
	b := smsc.behaviour.Load()
	if smsc.binds.Add(1) <= int64(b.RefuseBinds) {
		return smpp.Account{}, b.RefuseBindStatus
	}
	if cfg.SystemID != "" && (r.Bind.SystemID != cfg.SystemID || !smpp.SamePassword(r.Bind.Password, cfg.Password)) {
		return smpp.Account{}, smpp.StatusInvalidPassword
	}
	return smpp.Account{Roles: smpp.RoleUSSD, MaxBinds: cfg.MaxBinds, Rate: cfg.Rate}, smpp.StatusOK
}

// Addr is the address the SMSC listens on, as host:port.
func (smsc *SMSC) Addr() string { return smsc.address.String() }

// Sessions returns the sessions of an account, or of all if systemID is empty.
func (smsc *SMSC) Sessions(systemID string) []*smpp.Session { return smsc.server.Sessions(systemID) }

// Binds is how many binds were tried.
func (smsc *SMSC) Binds() int { return int(smsc.binds.Load()) }

// Cut cuts every connection without a word, as a broken cable does.
func (smsc *SMSC) Cut() {
	for _, s := range smsc.server.Sessions("") {
		s.Kill(errors.New("the operator cuts the line"))
	}
}

// Unbind unbinds every session, waiting for the answers under way as long as
// ctx allows.
func (smsc *SMSC) Unbind(ctx context.Context) error {
	var errs []error
	for _, s := range smsc.server.Sessions("") {
		errs = append(errs, s.Close(ctx))
	}
	return errors.Join(errs...)
}

// Close unbinds, waits for answers under way as long as ctx allows, and ends
// the SMSC. Receipts still to be sent are lost.
func (smsc *SMSC) Close(ctx context.Context) error {
	smsc.cancel()
	err := smsc.server.Shutdown(ctx)
	smsc.lines.closeAll()
	smsc.close()
	if served := <-smsc.served; !errors.Is(served, smpp.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// lineListener puts a line on every connection.
type lineListener struct {
	net.Listener
	lines *lines
}

func (l lineListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.lines.wrap(conn), nil
}
