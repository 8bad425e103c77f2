package reader

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"zvonok/ledger/pg"
)

// busyError is work that is not taken because enough is under way.
type busyError struct {
	device bool // the device's own share is used up, not the process's
}

// Error says whose share is used up.
func (e busyError) Error() string {
	if e.device {
		return "too many requests of this device are under way"
	}
	return "too many requests are under way"
}

// errTooLarge is a body over its limit.
var errTooLarge = errors.New("the body is too large")

// problem is an RFC 9457 document with what belongs into its headers.
type problem struct {
	huma.ErrorModel
	retry bool
	close bool
}

// problemOf decides how a failure is told to a device. Only what the device can
// do something about is said; the rest is for the log.
func problemOf(err error) problem {
	var (
		wrong *mistake
		busy  busyError
		large *http.MaxBytesError
		slow  interface{ Timeout() bool }
	)
	p := problem{}
	switch {
	case errors.Is(err, errKey):
		p.Status, p.Detail = http.StatusUnauthorized, "The key is unknown or revoked."
	case errors.As(err, &wrong):
		p.Status, p.Detail = http.StatusUnprocessableEntity, "The body is not an upload: "+wrong.Error()
		p.Errors = []*huma.ErrorDetail{{Message: wrong.message, Location: wrong.path}}
	case errors.Is(err, errTooLarge), errors.As(err, &large):
		p.Status, p.Detail, p.close = http.StatusRequestEntityTooLarge, "A body has at most 1 MiB.", true
	case errors.Is(err, errTooMany):
		p.Status, p.Detail = http.StatusRequestEntityTooLarge, "An upload has at most 1,000 events."
	case errors.Is(err, errEncoded):
		p.Status, p.Detail, p.close = http.StatusUnsupportedMediaType, "Bodies are not compressed here.", true
	case errors.As(err, &busy) && busy.device:
		p.Status, p.retry = http.StatusTooManyRequests, true
		p.Detail = "Too many requests of this device are under way; repeat later."
	case errors.Is(err, errBody) && errors.As(err, &slow) && slow.Timeout():
		p.Status, p.Detail, p.close = http.StatusRequestTimeout, "The body did not arrive in time.", true
	case errors.Is(err, errBody):
		p.Status, p.Detail, p.close = http.StatusBadRequest, "The body could not be read.", true
	case errors.As(err, &busy), errors.Is(err, pg.ErrClosed), pg.Temporary(err), errors.Is(err, errAgain), isTimeout(err):
		p.Status, p.retry = http.StatusServiceUnavailable, true
		p.Detail = "Nothing was stored; repeat later."
	default:
		p.Status, p.Detail = http.StatusInternalServerError, "Something is wrong with the server; repeat later."
		p.retry = true
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// refuse answers with the problem that an error is.
func (in *Intake) refuse(w http.ResponseWriter, r *http.Request, route string, err error) {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		in.trouble(r.Context(), err)
	}
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	if p.retry {
		header.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if p.close {
		header.Set("Connection", "close")
	}
	w.WriteHeader(p.Status)
	document, err := json.Marshal(p.ErrorModel)
	if err != nil { // it holds only strings and numbers
		panic(err)
	}
	w.Write(document) // a device that has gone needs no answer
	in.metrics.response(route, p.Status)
}
