package smpptest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"zvonok/gateway/smpp"
)

// Direction is the way of a PDU, seen from the operator.
type Direction uint8

const (
	// Inward is from the other side to the operator.
	Inward Direction = iota
	// Outward is from the operator to the other side.
	Outward
)

// String is "in" or "out".
func (d Direction) String() string {
	if d == Inward {
		return "in"
	}
	return "out"
}

// Recorded is one PDU of a recording.
type Recorded struct {
	At        time.Duration // since the start of the recording
	Line      int           // number of the connection
	Direction Direction
	Frame     []byte
}

// Recorder writes down what passes over the lines of an operator, texts
// included: one line of text for each PDU with the microsecond, the number of
// the connection, the direction and the octets in hexadecimal.
type Recorder struct {
	start time.Time

	mu  sync.Mutex
	w   *bufio.Writer
	err error
}

// NewRecorder records to w. Close must be called before w is used.
func NewRecorder(w io.Writer) *Recorder {
	return &Recorder{start: time.Now(), w: bufio.NewWriter(w)}
}

// Close writes what is buffered and returns the first error there was.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.w.Flush())
}

// frames records the whole frames at the start of octets and returns the rest.
// Octets that are no frames, as tampering makes them, are recorded as one.
func (r *Recorder) frames(line int, d Direction, octets []byte) (rest []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := time.Since(r.start).Microseconds()
	for len(octets) >= 4 {
		n := int64(binary.BigEndian.Uint32(octets))
		switch {
		case n < smpp.HeaderSize || n > smpp.MaxPDU:
			n = int64(len(octets))
		case n > int64(len(octets)):
			return octets
		}
		_, err := fmt.Fprintf(r.w, "%d %d %s %s\n", at, line, d, hex.EncodeToString(octets[:n]))
		if r.err == nil {
			r.err = err
		}
		octets = octets[n:]
	}
	return octets
}

// ReadRecording reads what a [Recorder] wrote. Empty lines and lines that begin
// with # are left out, so that a recording can be cut and annotated by hand.
func ReadRecording(r io.Reader) ([]Recorded, error) {
	var all []Recorded
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 4*smpp.MaxPDU)
	for n := 1; scanner.Scan(); n++ {
		text := strings.TrimSpace(scanner.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		var (
			at              int64
			rec             Recorded
			direction, data string
		)
		if _, err := fmt.Sscanf(text, "%d %d %s %s", &at, &rec.Line, &direction, &data); err != nil {
			return nil, fmt.Errorf("recording, line %d: %w", n, err)
		}
		switch direction {
		case "in":
			rec.Direction = Inward
		case "out":
			rec.Direction = Outward
		default:
			return nil, fmt.Errorf("recording, line %d: direction %q is neither in nor out", n, direction)
		}
		frame, err := hex.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("recording, line %d: %w", n, err)
		}
		rec.At, rec.Frame = time.Duration(at)*time.Microsecond, frame
		all = append(all, rec)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	return all, nil
}

// Replay plays one side of a recorded connection over conn: PDUs of the given
// direction are sent, those of the other are waited for and compared. Numbers
// of requests of the other side may differ; answers to them are numbered as the
// requests that came. enquire_link is left out of the recording and answered
// whenever it comes. With realTime the pauses of the recording are kept.
//
// The error tells the first PDU that came otherwise than recorded, or that ctx
// ended or the connection broke while one was waited for. The caller closes
// conn.
func Replay(ctx context.Context, conn net.Conn, recording []Recorded, play Direction, realTime bool) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p := player{
		conn:    conn,
		reader:  smpp.NewFrameReader(conn, smpp.MaxPDU),
		numbers: make(map[uint32]uint32),
	}
	start := time.Now()
	for i, rec := range recording {
		if keepsAlive(rec.Frame) {
			continue
		}
		var err error
		if rec.Direction == play {
			if realTime {
				wait := time.NewTimer(rec.At - recording[0].At - time.Since(start))
				select {
				case <-wait.C:
				case <-ctx.Done():
				}
				wait.Stop()
			}
			err = p.send(rec.Frame)
		} else {
			err = p.expect(rec.Frame)
		}
		if err != nil {
			return fmt.Errorf("replay, PDU %d of %d: %w", i+1, len(recording), errors.Join(ctx.Err(), err))
		}
	}
	return nil
}

// OneLine picks the PDUs of one connection.
func OneLine(recording []Recorded, line int) []Recorded {
	var picked []Recorded
	for _, rec := range recording {
		if rec.Line == line {
			picked = append(picked, rec)
		}
	}
	return picked
}

func keepsAlive(frame []byte) bool {
	if len(frame) < smpp.HeaderSize {
		return false
	}
	command := smpp.ParseHeader(frame).Command
	return command == smpp.CmdEnquireLink || command == smpp.CmdEnquireLinkResp
}

type player struct {
	conn    net.Conn
	reader  *smpp.FrameReader
	early   [][]byte          // came before they were waited for
	numbers map[uint32]uint32 // of their requests, recorded to real
}

func (p *player) send(frame []byte) error {
	if len(frame) >= smpp.HeaderSize {
		h := smpp.ParseHeader(frame)
		if real, ok := p.numbers[h.Sequence]; ok && h.Command.IsResponse() {
			frame = bytes.Clone(frame)
			binary.BigEndian.PutUint32(frame[12:], real)
		}
	}
	_, err := p.conn.Write(frame)
	return err
}

func (p *player) expect(want []byte) error {
	if len(want) < smpp.HeaderSize {
		return errors.New("the recording has a frame without a header")
	}
	wanted := smpp.ParseHeader(want)
	got, err := p.next(wanted.Command)
	if err != nil {
		return fmt.Errorf("wait for %s: %w", wanted.Command, err)
	}
	h := smpp.ParseHeader(got)
	if !h.Command.IsResponse() {
		p.numbers[wanted.Sequence] = h.Sequence
	}
	if h.Status != wanted.Status {
		return fmt.Errorf("%s has status %s, recorded was %s", h.Command, h.Status, wanted.Status)
	}
	if !bytes.Equal(got[smpp.HeaderSize:], want[smpp.HeaderSize:]) {
		return fmt.Errorf("%s has the body %x, recorded was %x",
			h.Command, got[smpp.HeaderSize:], want[smpp.HeaderSize:])
	}
	return nil
}

// next returns the first PDU of a kind that has come and was not waited for
// yet.
func (p *player) next(command smpp.CommandID) ([]byte, error) {
	for i, frame := range p.early {
		if smpp.ParseHeader(frame).Command == command {
			p.early = append(p.early[:i], p.early[i+1:]...)
			return frame, nil
		}
	}
	for {
		frame, err := p.reader.Next()
		if err != nil {
			return nil, err
		}
		switch h := smpp.ParseHeader(frame); h.Command {
		case command:
			return frame, nil
		case smpp.CmdEnquireLink:
			answer, err := smpp.Append(nil, h.Sequence, smpp.StatusOK, &smpp.Plain{Command: smpp.CmdEnquireLinkResp})
			if err == nil {
				_, err = p.conn.Write(answer)
			}
			if err != nil {
				return nil, err
			}
		case smpp.CmdEnquireLinkResp:
		default:
			p.early = append(p.early, frame)
		}
	}
}
