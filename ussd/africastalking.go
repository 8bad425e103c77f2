package ussd

import (
	"fmt"
	"io"
	"net/http"
)

// africasTalking is the convention of Africa's Talking and of the many that copied it: a POST of a form with
// sessionId, phoneNumber, networkCode, serviceCode and text, all inputs so far joined by stars; the answer is plain
// text that begins with "CON " when a key is awaited and with "END " when not. A separate call with "status" tells
// that a session is over. The first text is not always empty: a person may have dialled past the code, so whether a
// call begins a dialogue shows only by its session.
func africasTalking() convention {
	return convention{
		method: http.MethodPost,
		read: func(r *http.Request) (call, error) {
			if err := r.ParseForm(); err != nil {
				return call{}, fmt.Errorf("read the form: %w", err)
			}
			form := r.PostForm
			c := call{
				kind: either, session: form.Get("sessionId"), msisdn: form.Get("phoneNumber"),
				code: form.Get("serviceCode"), text: form.Get("text"), cumulative: true,
			}
			if form.Get("status") != "" && !form.Has("text") {
				c.kind = abort
			}
			return c, nil
		},
		write: func(w http.ResponseWriter, _ call, a answer) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			verb := "CON "
			if a.end {
				verb = "END "
			}
			// The caller is gone if this fails, and nobody is left to be told.
			_, _ = io.WriteString(w, verb+a.text)
		},
		closed: func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
	}
}
