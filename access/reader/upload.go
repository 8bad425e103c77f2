package reader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// errEncoded is a compressed body: a small one may unpack to gigabytes.
var errEncoded = errors.New("the body is encoded")

// errBody is a body that broke off.
var errBody = errors.New("the body broke off")

// Acknowledgement answers an upload.
type Acknowledgement struct {
	Acknowledged []int64     `json:"acknowledged" nullable:"false"`
	Rejected     []Rejection `json:"rejected" nullable:"false"`
	ServerTime   time.Time   `json:"server_time"`
}

// answer is what became of an upload.
type answer struct {
	acknowledged []int64
	rejected     []Rejection
	err          error
}

// serveEvents answers POST /api/v1/events.
func (in *Intake) serveEvents(w http.ResponseWriter, r *http.Request) {
	began := in.now()
	result, err := in.takeUpload(w, r)
	if err != nil {
		in.refuse(w, r, eventsRoute, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	now := in.now()
	w.Write(result.document(now)) // a device that has gone will repeat the upload
	in.metrics.answered(eventsRoute, now.Sub(began))
}

// takeUpload reads and stores an upload.
func (in *Intake) takeUpload(w http.ResponseWriter, r *http.Request) (answer, error) {
	if err := checkBody(r, maxBody); err != nil {
		return answer{}, err
	}
	device, err := in.keys.device(r.Context(), r.Header.Get("Authorization"))
	if err != nil {
		return answer{}, err
	}
	in.see(device.ID, r)
	leave, err := in.uploads.take(device.ID, bodySize(r, maxBody))
	if err != nil {
		return answer{}, err
	}
	defer leave()
	in.metrics.underWay.WithLabelValues(eventsRoute).Inc()
	defer in.metrics.underWay.WithLabelValues(eventsRoute).Dec()
	body, err := in.readBody(w, r, maxBody)
	if err != nil {
		return answer{}, err
	}
	u, err := parseUpload(body, device, in.now())
	if err != nil {
		return answer{}, err
	}
	if u.clock.flagged() {
		in.metrics.skewed.Inc()
	}
	var result answer
	switch {
	case len(u.facts) == 0:
		// Only a sign of life.
	case len(u.facts) <= smallUpload:
		result, err = in.gather.Do(r.Context(), u)
	default:
		result, err = in.storeLarge(r.Context(), u)
	}
	if err == nil {
		err = result.err
	}
	if err != nil {
		return answer{}, err
	}
	in.contacts.note(device.ID, u.clock)
	in.well(r.Context())
	return result, nil
}

// storeLarge stores an upload that is a batch by itself.
func (in *Intake) storeLarge(ctx context.Context, u *upload) (answer, error) {
	select {
	case in.large <- struct{}{}:
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
	defer func() { <-in.large }()
	answers, err := in.storeUploads(context.WithoutCancel(ctx), []*upload{u})
	if err != nil {
		return answer{}, err
	}
	return answers[0], nil
}

// checkBody refuses by the headers alone.
func checkBody(r *http.Request, limit int64) error {
	if r.ContentLength > limit {
		return errTooLarge
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return errEncoded
	}
	return nil
}

// bodySize is how large a body may be: what it declares, or the limit when it
// comes in chunks.
func bodySize(r *http.Request, limit int64) int64 {
	if r.ContentLength < 0 {
		return limit
	}
	return r.ContentLength
}

// readBody reads a body within its limits of size and time.
func (in *Intake) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	// The server sets the deadline of the next request itself. A writer that
	// knows no deadlines is one of a test.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(in.bodyTime)); err != nil &&
		!errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("set the time for reading a body: %w", err)
	}
	body, err := readAll(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	return body, nil
}

// document writes the answer. It is written by hand since it is the most
// frequent one.
func (a answer) document(now time.Time) []byte {
	b := make([]byte, 0, 96+8*len(a.acknowledged))
	b = append(b, `{"acknowledged":[`...)
	for i, seq := range a.acknowledged {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, seq, 10)
	}
	b = append(b, `],"rejected":`...)
	if len(a.rejected) == 0 {
		b = append(b, `[]`...)
	} else {
		rejected, err := json.Marshal(a.rejected)
		if err != nil { // it holds only strings and numbers
			panic(err)
		}
		b = append(b, rejected...)
	}
	b = append(b, `,"server_time":"`...)
	b = now.AppendFormat(b, time.RFC3339Nano)
	return append(b, `"}`...)
}
