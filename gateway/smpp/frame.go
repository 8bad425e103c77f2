package smpp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	unboundBuffer = 1 << 10  // read buffer before the bind: room for one bind
	boundBuffer   = 16 << 10 // read buffer after it: about a hundred messages a read
)

// FrameError says that the length in front of a PDU cannot be true. What
// follows it in the stream is unreadable.
type FrameError struct {
	Length uint32 // claimed command_length in octets
	Max    int    // greatest allowed
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("command_length %d is not within %d and %d", e.Length, HeaderSize, e.Max)
}

// ErrSlowPDU says that a PDU began and did not end within the allowed time.
var ErrSlowPDU = errors.New("PDU did not arrive in time")

// FrameReader cuts a stream into PDUs by their length and looks at nothing
// else. It allocates what has arrived, not what a length claims. It is for one
// goroutine.
type FrameReader struct {
	src  io.Reader
	max  int
	buf  []byte
	r, w int // buf[r:w] has arrived and was not handed out yet

	// arm sets the deadline of the next reads, the zero time none. A nil arm
	// means that the owner keeps a deadline of his own.
	arm      func(time.Time) error
	patience time.Duration
	armed    bool
}

// NewFrameReader reads frames of at most max octets from src, without any
// deadline.
func NewFrameReader(src io.Reader, limit int) *FrameReader {
	return &FrameReader{src: src, max: limit, buf: make([]byte, unboundBuffer)}
}

// setBound prepares the reader for a bound session: long PDUs, a large buffer,
// and a deadline for each PDU that has begun. It counts for the whole PDU, so
// an octet now and then does not keep the connection.
func (f *FrameReader) setBound(arm func(time.Time) error, patience time.Duration) {
	f.max = MaxPDU
	f.arm, f.patience = arm, patience
	buf := make([]byte, boundBuffer)
	f.w = copy(buf, f.buf[f.r:f.w])
	f.buf, f.r = buf, 0
}

// Next returns the next whole frame in memory of its own. At the end of the
// stream it returns [io.EOF], in the middle of a frame
// [io.ErrUnexpectedEOF]; a wrong length is a [*FrameError], a frame that takes
// too long wraps [ErrSlowPDU].
func (f *FrameReader) Next() ([]byte, error) {
	frame, err := f.next()
	if f.armed {
		f.armed = false
		if armErr := f.arm(time.Time{}); err == nil && armErr != nil {
			err = fmt.Errorf("clear read deadline: %w", armErr)
		}
	}
	return frame, err
}

func (f *FrameReader) next() ([]byte, error) {
	if f.r == f.w {
		if err := f.fill(1); err != nil {
			return nil, err
		}
	}
	if err := f.fill(4); err != nil {
		return nil, midFrame(err)
	}
	length := binary.BigEndian.Uint32(f.buf[f.r:])
	if length < HeaderSize || int64(length) > int64(f.max) {
		return nil, &FrameError{Length: length, Max: f.max}
	}
	n := int(length)
	if n <= len(f.buf) {
		if err := f.fill(n); err != nil {
			return nil, midFrame(err)
		}
		frame := make([]byte, n)
		f.r += copy(frame, f.buf[f.r:])
		return frame, nil
	}
	return f.long(n)
}

// long reads a frame that does not fit into the buffer. Its memory doubles as
// the octets come.
func (f *FrameReader) long(n int) ([]byte, error) {
	frame := make([]byte, 0, min(n, 2*len(f.buf)))
	frame = append(frame, f.buf[f.r:f.w]...)
	f.r, f.w = 0, 0
	for len(frame) < n {
		if len(frame) == cap(frame) {
			grown := make([]byte, len(frame), min(n, 2*cap(frame)))
			copy(grown, frame)
			frame = grown
		}
		if err := f.setDeadline(); err != nil {
			return nil, err
		}
		got, err := f.src.Read(frame[len(frame):cap(frame)])
		frame = frame[:len(frame)+got]
		if err != nil && len(frame) < n {
			return nil, midFrame(f.slow(err))
		}
	}
	return frame, nil
}

// fill reads until n octets are in the buffer. The wait for the first octet of
// a PDU has no deadline.
func (f *FrameReader) fill(n int) error {
	if len(f.buf)-f.r < n {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	for f.w-f.r < n {
		if f.r == f.w {
			f.r, f.w = 0, 0
		} else if err := f.setDeadline(); err != nil {
			return err
		}
		got, err := f.src.Read(f.buf[f.w:])
		f.w += got
		if err != nil && f.w-f.r < n {
			return f.slow(err)
		}
	}
	return nil
}

func (f *FrameReader) setDeadline() error {
	if f.arm == nil || f.armed {
		return nil
	}
	f.armed = true
	if err := f.arm(time.Now().Add(f.patience)); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	return nil
}

func (f *FrameReader) slow(err error) error {
	var timeout interface{ Timeout() bool }
	if f.armed && errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("%w: %w", ErrSlowPDU, err)
	}
	return err
}

func midFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
