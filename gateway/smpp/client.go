package smpp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// defaultBindTimeout is how long connecting, TLS and the answer to the bind may
// take together.
const defaultBindTimeout = 10 * time.Second

// ClientConfig says how to bind to an SMSC.
type ClientConfig struct {
	// Address is host:port of the SMSC.
	Address string

	// TLS, if not nil, makes the connection a TLS one. The certificate of the
	// SMSC is checked as the configuration says; an empty ServerName becomes the
	// host of Address.
	TLS *tls.Config

	// Dial opens the connection; by default a [net.Dialer] does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Type             BindType
	SystemID         string // at most 15 octets
	Password         string // at most 8 octets
	SystemType       string // at most 12 octets, usually empty
	InterfaceVersion uint8  // zero is 3.4
	AddressTON       uint8
	AddressNPI       uint8
	AddressRange     string // at most 40 octets, usually empty

	// BindTimeout is how long all of Dial may take, 10 s by default.
	BindTimeout time.Duration

	Session SessionConfig
}

// BindError says that the SMSC refused the bind. The status tells whether the
// account, the number of binds or the SMSC is the reason.
type BindError struct {
	Address string
	Status  Status
}

func (e *BindError) Error() string {
	return fmt.Sprintf("bind to %s refused: %s", e.Address, e.Status)
}

// Dial connects to an SMSC and binds. A refusal is a [*BindError]; any other
// error is one of the network, of TLS, of a field that does not fit
// ([ErrNotEncodable]), or [ErrTimeout] if the SMSC does not answer the bind.
// Dial tries once.
func Dial(ctx context.Context, cfg ClientConfig) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.bindTimeout())
	defer cancel()
	dial := cfg.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to SMSC: %w", err)
	}
	if cfg.TLS != nil {
		secured, err := handshake(ctx, conn, cfg)
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS with SMSC %s: %w", cfg.Address, err)
		}
		conn = secured
	}
	return BindOver(ctx, conn, cfg)
}

func handshake(ctx context.Context, conn net.Conn, cfg ClientConfig) (net.Conn, error) {
	tlsConfig := cfg.TLS
	if tlsConfig.ServerName == "" && !tlsConfig.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(cfg.Address)
		if err != nil {
			return nil, err
		}
		tlsConfig = tlsConfig.Clone()
		tlsConfig.ServerName = host
	}
	secured := tls.Client(conn, tlsConfig)
	return secured, secured.HandshakeContext(ctx)
}

// BindOver binds over a connection that is there already. It closes the
// connection if it fails. See [Dial].
func BindOver(ctx context.Context, conn net.Conn, cfg ClientConfig) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.bindTimeout())
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	s, err := bindOver(conn, cfg)
	if !stop() || err != nil {
		conn.Close()
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, fmt.Errorf("bind to %s: %w: %w", cfg.Address, ErrTimeout, ctx.Err())
		case ctx.Err() != nil:
			return nil, fmt.Errorf("bind to %s: %w", cfg.Address, ctx.Err())
		}
		return nil, err
	}
	s.start()
	return s, nil
}

func bindOver(conn net.Conn, cfg ClientConfig) (*Session, error) {
	bind := &Bind{
		Type:             cfg.Type,
		SystemID:         cfg.SystemID,
		Password:         cfg.Password,
		SystemType:       cfg.SystemType,
		InterfaceVersion: cfg.InterfaceVersion,
		AddressTON:       cfg.AddressTON,
		AddressNPI:       cfg.AddressNPI,
		AddressRange:     cfg.AddressRange,
	}
	if bind.InterfaceVersion == 0 {
		bind.InterfaceVersion = Version34
	}
	if err := writePDU(conn, 1, StatusOK, bind); err != nil {
		return nil, fmt.Errorf("bind to %s: %w", cfg.Address, err)
	}
	frames := NewFrameReader(conn, MaxUnboundPDU)
	for {
		frame, err := frames.Next()
		if err != nil {
			return nil, fmt.Errorf("bind to %s: %w", cfg.Address, err)
		}
		h, pdu, decodeErr := Decode(frame)
		switch h.Command {
		case bind.CommandID().Response(), CmdGenericNack:
			if h.Status != StatusOK || h.Command == CmdGenericNack {
				return nil, &BindError{Address: cfg.Address, Status: h.Status}
			}
			if decodeErr != nil {
				return nil, fmt.Errorf("bind to %s: %w", cfg.Address, decodeErr)
			}
			return boundESME(conn, frames, cfg, pdu.(*BindResp)), nil
		case CmdEnquireLink:
			if err := writePDU(conn, h.Sequence, StatusOK, &Plain{Command: CmdEnquireLinkResp}); err != nil {
				return nil, fmt.Errorf("bind to %s: %w", cfg.Address, err)
			}
		}
		// Anything else has no meaning before the bind: an SMSC sends nothing
		// that needs an answer.
	}
}

func boundESME(conn net.Conn, frames *FrameReader, cfg ClientConfig, resp *BindResp) *Session {
	version, _ := resp.TLVs.Uint(TagSCInterfaceVersion)
	s := newSession(conn, frames, cfg.Session, Binding{
		Side:         SideESME,
		Type:         cfg.Type,
		SystemID:     cfg.SystemID,
		PeerSystemID: resp.SystemID,
		SystemType:   cfg.SystemType,
		Version:      uint8(version),
		Local:        conn.LocalAddr(),
		Remote:       conn.RemoteAddr(),
	})
	s.sequence = 1 // of the bind
	return s
}

func (c *ClientConfig) bindTimeout() time.Duration {
	if c.BindTimeout == 0 {
		return defaultBindTimeout
	}
	return c.BindTimeout
}

func writePDU(conn net.Conn, sequence uint32, status Status, p PDU) error {
	octets, err := Append(nil, sequence, status, p)
	if err != nil {
		return err
	}
	_, err = conn.Write(octets)
	return err
}
