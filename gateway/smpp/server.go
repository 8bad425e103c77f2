package smpp

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits of a server; those of [ServerConfig] are defaults.
const (
	defaultUnboundTimeout   = 5 * time.Second // from the connection to the bind, TLS included
	defaultWrongLoginDelay  = time.Second     // from the bind to its refusal
	defaultMaxConns         = 4096
	defaultMaxConnsPerIP    = 256
	defaultMaxUnbound       = 1024
	defaultMaxUnboundPerIP  = 32
	maxUnboundPDUs          = 5    // PDUs of a peer that does not bind
	floodFactor             = 10   // times the rate of the account ...
	floodBurst              = 1000 // ... and so many at once: a peer above does not listen to 0x58
	logPerSecond, logAtOnce = 1, 10
	acceptPause             = 50 * time.Millisecond // after a failed accept, for file descriptors to come back
)

// Role is a set of things an account may do.
type Role uint8

const (
	// RoleUSSD lets an account send messages with the TLV ussd_service_op.
	// Without it they are refused with 0xC1: a USSD message is believed to come
	// from the phone it names, so only the operator's own gateway may send one.
	RoleUSSD Role = 1 << iota
)

// Account is what a system_id may do on our server.
type Account struct {
	SystemID string
	Roles    Role

	// Networks are those the account may bind from. Empty means anywhere. A bind
	// from elsewhere is refused like one with a wrong password.
	Networks []netip.Prefix

	// Types are the kinds of bind the account may use. Empty means all.
	Types []BindType

	// MaxBinds is how many binds the account may have at once; more are refused
	// with 0x05. Zero means one.
	MaxBinds int

	// Window is how many requests of one bind may be unanswered, zero means
	// [SessionConfig.InboundLimit]. More are refused with 0x58 or 0x64.
	Window int

	// DeliverWindow is how many of our requests to one bind may be unanswered,
	// zero means [SessionConfig.Window].
	DeliverWindow int

	// Rate is how many messages a second all binds of the account may send
	// together; more are refused with 0x58. Zero means no limit.
	Rate float64

	// Burst is how many messages may come at once under Rate; zero means a
	// second's worth.
	Burst int
}

// BindRequest is a bind as it came.
type BindRequest struct {
	Bind   *Bind
	Remote netip.AddrPort
	TLS    *tls.ConnectionState // nil without TLS
}

// ServerConfig says how to be bound to. Zero limits mean their defaults.
type ServerConfig struct {
	// SystemID is ours, at most 15 octets; it goes into the answer to a bind.
	SystemID string

	// TLS, if not nil, makes every connection a TLS one.
	TLS *tls.Config

	// Authenticate decides about a login. The status is [StatusOK] or the reason
	// of the refusal; of [StatusInvalidSystemID] the peer hears
	// [StatusInvalidPassword], so that it does not learn which names exist.
	// Passwords are best compared with [SamePassword]. It is called by several
	// goroutines at once.
	Authenticate func(ctx context.Context, r BindRequest) (Account, Status)

	// Session is what all sessions of the server have in common.
	Session SessionConfig

	// Opened is called when a peer is about to be told that it has bound, before
	// anything is read from its session. It may be nil.
	Opened func(*Session)

	// Closed is called when a session that was opened has ended and every outcome
	// has been handed over. It may be nil.
	Closed func(*Session)

	// Log gets binds and refusals. It must not be nil.
	Log *slog.Logger

	// UnboundTimeout is the time from the connection to the bind, 5 s by
	// default.
	UnboundTimeout time.Duration

	// WrongLoginDelay is the time from a wrong login to its refusal, 1 s by
	// default. It does not depend on what is wrong.
	WrongLoginDelay time.Duration

	// MaxConns is how many connections there may be, 4096 by default,
	// MaxConnsPerAddress how many of them from one address, 256 by default. More
	// are closed at once. An IPv6 address counts by its first 64 bits.
	MaxConns           int
	MaxConnsPerAddress int

	// MaxUnbound is how many connections may be without a bind, 1024 by default;
	// of more the oldest is closed. MaxUnboundPerAddress is how many of them may
	// come from one address, 32 by default; more are closed at once.
	MaxUnbound           int
	MaxUnboundPerAddress int
}

// Server lets operators' gateways bind to us. It is made by [NewServer].
type Server struct {
	cfg    ServerConfig
	guard  *guard
	logs   *rate.Limiter // of refusals
	ctx    context.Context
	cancel context.CancelFunc
	conns  sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	accounts  map[string]*accountState
	unlogged  int // refusals not logged
	attached  uint64
}

// accountState is what the binds of an account share.
type accountState struct {
	sessions map[*Session]uint64 // with the order in which they were bound
	quota    *rate.Limiter
}

// NewServer makes a server. It panics if Authenticate or Log is missing.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Authenticate == nil || cfg.Log == nil {
		panic("smpp: a server needs Authenticate and Log")
	}
	setDefault(&cfg.UnboundTimeout, defaultUnboundTimeout)
	setDefault(&cfg.WrongLoginDelay, defaultWrongLoginDelay)
	setDefault(&cfg.MaxConns, defaultMaxConns)
	setDefault(&cfg.MaxConnsPerAddress, defaultMaxConnsPerIP)
	setDefault(&cfg.MaxUnbound, defaultMaxUnbound)
	setDefault(&cfg.MaxUnboundPerAddress, defaultMaxUnboundPerIP)
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		cfg:       cfg,
		guard:     newGuard(cfg),
		logs:      rate.NewLimiter(logPerSecond, logAtOnce),
		ctx:       ctx,
		cancel:    cancel,
		listeners: make(map[net.Listener]struct{}),
		accounts:  make(map[string]*accountState),
	}
}

// SamePassword compares two passwords in a time that depends on neither.
func SamePassword(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// ErrServerClosed is returned by [Server.Serve] after [Server.Shutdown].
var ErrServerClosed = errors.New("server is closed")

// Serve takes connections from l until the server is shut down or the listener
// fails. Errors that pass, such as no file descriptor being left, only make it
// pause. It always returns an error.
func (srv *Server) Serve(l net.Listener) error {
	defer l.Close()
	srv.mu.Lock()
	if srv.closed {
		srv.mu.Unlock()
		return ErrServerClosed
	}
	srv.listeners[l] = struct{}{}
	srv.mu.Unlock()
	defer func() {
		srv.mu.Lock()
		delete(srv.listeners, l)
		srv.mu.Unlock()
	}()
	for {
		conn, err := l.Accept()
		switch {
		case srv.ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		case err != nil:
			srv.cfg.Log.Warn("accept failed", "err", err)
			select {
			case <-srv.ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		srv.mu.Lock()
		if srv.closed {
			srv.mu.Unlock()
			conn.Close()
			return ErrServerClosed
		}
		srv.conns.Go(func() { srv.serve(conn) })
		srv.mu.Unlock()
	}
}

// Sessions returns the sessions of an account, or of all accounts if systemID
// is empty, in the order in which they were bound.
func (srv *Server) Sessions(systemID string) []*Session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	order := make(map[*Session]uint64)
	for id, account := range srv.accounts {
		if systemID == "" || id == systemID {
			maps.Copy(order, account.sessions)
		}
	}
	return slices.SortedFunc(maps.Keys(order), func(a, b *Session) int { return cmp.Compare(order[a], order[b]) })
}

// Shutdown takes no more connections, closes those without a bind and closes
// every session as [Session.Close] does. It returns when all have ended.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.cancel()
	srv.mu.Lock()
	srv.closed = true
	for l := range srv.listeners {
		l.Close()
	}
	srv.mu.Unlock()
	var wg sync.WaitGroup
	sessions := srv.Sessions("")
	errs := make([]error, len(sessions))
	for i, s := range sessions {
		wg.Go(func() { errs[i] = s.Close(ctx) })
	}
	wg.Wait()
	srv.conns.Wait()
	return errors.Join(errs...)
}

// serve leads a connection from its first octet to its end.
func (srv *Server) serve(conn net.Conn) {
	visitor, ok := srv.guard.enter(conn, time.Now())
	if !ok {
		conn.Close()
		srv.refused("too many connections or wrong logins", conn.RemoteAddr(), "", StatusOK)
		return
	}
	defer func() { srv.guard.leave(visitor, time.Now()) }()
	s := srv.admit(conn, visitor)
	if s == nil {
		conn.Close()
		return
	}
	<-s.Done()
	srv.remove(s)
	srv.cfg.Log.Info("session ended", "system_id", s.binding.SystemID, "remote", s.binding.Remote.String(),
		"cause", s.Err().Error())
	if srv.cfg.Closed != nil {
		srv.cfg.Closed(s)
	}
}

// admit makes a connection a session, or returns nil.
func (srv *Server) admit(conn net.Conn, visitor *stranger) *Session {
	ctx, cancel := context.WithTimeout(srv.ctx, srv.cfg.UnboundTimeout)
	defer cancel()
	// One deadline for everything up to the bind: an octet now and then does
	// not prolong it.
	raw := conn
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	var state *tls.ConnectionState
	if srv.cfg.TLS != nil {
		secured := tls.Server(conn, srv.cfg.TLS)
		if err := secured.HandshakeContext(ctx); err != nil {
			srv.refused("TLS handshake failed", conn.RemoteAddr(), "", StatusOK)
			return nil
		}
		connectionState := secured.ConnectionState()
		conn, state = secured, &connectionState
	}
	frames := NewFrameReader(conn, MaxUnboundPDU)
	bind, sequence := srv.awaitBind(conn, frames)
	if bind == nil {
		return nil
	}
	account, status := srv.authenticate(ctx, visitor, BindRequest{Bind: bind, Remote: remoteOf(conn), TLS: state})
	if status != StatusOK {
		srv.refused("bind refused", conn.RemoteAddr(), bind.SystemID, status)
		srv.refuseBind(ctx, conn, visitor, bind, sequence, status)
		return nil
	}
	s := srv.newSession(conn, frames, bind, account)
	if s == nil {
		srv.refused("bind refused", conn.RemoteAddr(), bind.SystemID, StatusAlreadyBound)
		srv.sayRefused(conn, bind, sequence, StatusAlreadyBound)
		return nil
	}
	srv.guard.bound(visitor, time.Now())
	srv.cfg.Log.Info("session bound", "system_id", bind.SystemID, "type", bind.Type.String(),
		"remote", conn.RemoteAddr().String(), "tls", state != nil)
	if srv.cfg.Opened != nil {
		srv.cfg.Opened(s)
	}
	resp := &BindResp{Type: bind.Type, SystemID: srv.cfg.SystemID}
	if bind.InterfaceVersion >= Version34 {
		resp.TLVs = TLVs{Uint8(TagSCInterfaceVersion, Version34)}
	}
	if err := writePDU(conn, sequence, StatusOK, resp); err != nil {
		s.fail(fmt.Errorf("answer bind: %w", err))
	}
	if !stop() {
		s.fail(fmt.Errorf("answer bind: %w", context.Cause(ctx)))
	}
	// From here on the session looks after itself, even if it has failed.
	s.start()
	return s
}

// awaitBind reads until a bind comes. It returns nil if none does.
func (srv *Server) awaitBind(conn net.Conn, frames *FrameReader) (bind *Bind, sequence uint32) {
	for range maxUnboundPDUs {
		frame, err := frames.Next()
		if err != nil {
			var bad *FrameError
			if errors.As(err, &bad) {
				_ = writePDU(conn, 0, StatusInvalidCommandLength, &Plain{Command: CmdGenericNack})
				srv.refused("not SMPP", conn.RemoteAddr(), "", StatusInvalidCommandLength)
			}
			return nil, 0
		}
		h, pdu, err := Decode(frame)
		if bind, ok := pdu.(*Bind); ok && err == nil {
			return bind, h.Sequence
		}
		switch {
		case h.Command.IsResponse():
			continue
		case h.Command == CmdUnbind:
			_ = writePDU(conn, h.Sequence, StatusOK, &Plain{Command: CmdUnbindResp})
			return nil, 0
		case h.Command == CmdEnquireLink:
			err = writePDU(conn, h.Sequence, StatusOK, &Plain{Command: CmdEnquireLinkResp})
		case err != nil:
			var bad *DecodeError
			errors.As(err, &bad)
			err = writePDU(conn, h.Sequence, bad.Status, &Raw{Command: h.Command.Response()})
		default:
			err = writePDU(conn, h.Sequence, StatusInvalidBindStatus, &Raw{Command: nackOr(h.Command)})
		}
		if err != nil {
			return nil, 0
		}
	}
	return nil, 0
}

// nackOr is the command that refuses a request: its answer if we know the
// request, else generic_nack.
func nackOr(command CommandID) CommandID {
	switch command {
	case CmdSubmitSM, CmdDeliverSM, CmdDataSM, CmdQuerySM, CmdCancelSM, CmdReplaceSM, CmdSubmitMulti:
		return command.Response()
	default:
		return CmdGenericNack
	}
}

func remoteOf(conn net.Conn) netip.AddrPort {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		remote := tcp.AddrPort()
		return netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	}
	return netip.AddrPort{}
}

func (srv *Server) authenticate(ctx context.Context, visitor *stranger, r BindRequest) (Account, Status) {
	if srv.guard.suspect(visitor, r.Bind.SystemID, time.Now()) {
		return Account{}, StatusInvalidPassword
	}
	account, status := srv.cfg.Authenticate(ctx, r)
	if status == StatusInvalidSystemID {
		status = StatusInvalidPassword
	}
	if status != StatusOK {
		return Account{}, status
	}
	if len(account.Networks) > 0 && !slices.ContainsFunc(account.Networks, func(p netip.Prefix) bool {
		return p.Contains(r.Remote.Addr())
	}) {
		return Account{}, StatusInvalidPassword
	}
	if len(account.Types) > 0 && !slices.Contains(account.Types, r.Bind.Type) {
		return Account{}, StatusBindFailed
	}
	account.SystemID = r.Bind.SystemID
	return account, StatusOK
}

// refuseBind answers a refused login after the delay.
func (srv *Server) refuseBind(ctx context.Context, conn net.Conn, visitor *stranger, bind *Bind,
	sequence uint32, status Status,
) {
	if status == StatusInvalidPassword {
		if !srv.guard.wrong(visitor, bind.SystemID, time.Now()) {
			return
		}
		defer srv.guard.refused(bind.SystemID)
		select {
		case <-time.After(srv.cfg.WrongLoginDelay):
		case <-ctx.Done():
			return
		}
	}
	srv.sayRefused(conn, bind, sequence, status)
}

func (srv *Server) sayRefused(conn net.Conn, bind *Bind, sequence uint32, status Status) {
	// A peer that does not take the refusal is closed all the same.
	_ = writePDU(conn, sequence, status, &BindResp{Type: bind.Type, NoBody: true})
}

// newSession makes the session of a bind and gives it its place among those of
// the account. It returns nil if there is none.
func (srv *Server) newSession(conn net.Conn, frames *FrameReader, bind *Bind, account Account) *Session {
	cfg := srv.cfg.Session
	if account.Window > 0 {
		cfg.InboundLimit = account.Window
	}
	if account.DeliverWindow > 0 {
		cfg.Window = account.DeliverWindow
	}
	s := newSession(conn, frames, cfg, Binding{
		Side:       SideSMSC,
		Type:       bind.Type,
		SystemID:   bind.SystemID,
		SystemType: bind.SystemType,
		Version:    bind.InterfaceVersion,
		Local:      conn.LocalAddr(),
		Remote:     conn.RemoteAddr(),
		Account:    account,
	})
	s.refuseUSSD = account.Roles&RoleUSSD == 0

	srv.mu.Lock()
	defer srv.mu.Unlock()
	state := srv.accounts[bind.SystemID]
	if state == nil {
		state = &accountState{sessions: make(map[*Session]uint64)}
		srv.accounts[bind.SystemID] = state
	}
	if srv.closed || len(state.sessions) >= max(account.MaxBinds, 1) {
		return nil
	}
	if account.Rate > 0 {
		burst := account.Burst
		if burst == 0 {
			burst = max(int(account.Rate), 1)
		}
		if state.quota == nil {
			state.quota = rate.NewLimiter(rate.Limit(account.Rate), burst)
		}
		state.quota.SetLimit(rate.Limit(account.Rate))
		state.quota.SetBurst(burst)
		s.quota = state.quota
		s.flood = rate.NewLimiter(rate.Limit(floodFactor*account.Rate), floodBurst+burst)
	}
	srv.attached++
	state.sessions[s] = srv.attached
	return s
}

func (srv *Server) remove(s *Session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.accounts[s.binding.SystemID].sessions, s)
}

// refused logs a refusal, unless so many come that the log itself would become
// the damage; then their number is told with the next one.
func (srv *Server) refused(what string, remote net.Addr, systemID string, status Status) {
	srv.mu.Lock()
	if !srv.logs.Allow() {
		srv.unlogged++
		srv.mu.Unlock()
		return
	}
	unlogged := srv.unlogged
	srv.unlogged = 0
	srv.mu.Unlock()
	attrs := []any{"remote", remote.String(), "unlogged_before", unlogged}
	if systemID != "" {
		attrs = append(attrs, "system_id", systemID)
	}
	if status != StatusOK {
		attrs = append(attrs, "status", status.String())
	}
	srv.cfg.Log.Warn(what, attrs...)
}
