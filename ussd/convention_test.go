package ussd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// arkesel is the convention of Arkesel (ussd.md section 4): JSON, the last input only, a new session said to be one.
func arkesel() convention {
	type message struct {
		SessionID       string `json:"sessionID"`
		UserID          string `json:"userID"`
		NewSession      bool   `json:"newSession"`
		MSISDN          string `json:"msisdn"`
		UserData        string `json:"userData"`
		Message         string `json:"message"`
		ContinueSession bool   `json:"continueSession"`
	}
	return convention{
		method: http.MethodPost,
		read: func(r *http.Request) (call, error) {
			var m message
			if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
				return call{}, fmt.Errorf("read the JSON: %w", err)
			}
			c := call{kind: input, session: m.SessionID, msisdn: m.MSISDN, text: m.UserData}
			if m.NewSession {
				c.kind = begin
			}
			return c, nil
		},
		write: func(w http.ResponseWriter, c call, a answer) {
			_ = json.NewEncoder(w).Encode(message{
				SessionID: c.session, MSISDN: c.msisdn, Message: a.text, ContinueSession: !a.end,
			})
		},
		closed: func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
	}
}

// cellulant is the convention of Cellulant (ussd.md section 4): everything in the address of a GET, fields with bars
// between them in the answer, an abort said by the operation code.
func cellulant() convention {
	return convention{
		method: http.MethodGet,
		read: func(r *http.Request) (call, error) {
			q := r.URL.Query()
			c := call{kind: input, session: q.Get("sessionID"), msisdn: q.Get("MSISDN"), text: q.Get("INPUT")}
			switch q.Get("opCode") {
			case "BEG":
				c.kind = begin
			case "ABO":
				c.kind = abort
			}
			return c, nil
		},
		write: func(w http.ResponseWriter, _ call, a answer) {
			end := "null"
			if a.end {
				end = "end"
			}
			fmt.Fprintf(w, "1|%s|0|777|%s|null", a.text, end)
		},
		closed: func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
	}
}

// Issue 4, item 5: adding another HTTP convention is one file: a value like these two.
func TestAnotherHTTPConventionIsOneValue(t *testing.T) {
	ask := func(r *rig, request *http.Request) string {
		r.t.Helper()
		request.Header.Set("Authorization", "Bearer "+secret)
		request.RemoteAddr = "192.0.2.7:4000"
		recorder := httptest.NewRecorder()
		r.server.Handler().ServeHTTP(recorder, request)
		body, err := io.ReadAll(recorder.Result().Body)
		if err != nil {
			r.t.Fatal(err)
		}
		return strings.TrimSpace(string(body))
	}
	t.Run("arkesel", func(t *testing.T) {
		withAggregator(t, func(r *rig) {
			r.server.links["at"].speaks = arkesel()
			say := func(begins bool, text string) string {
				body := fmt.Sprintf(`{"sessionID":"s1","msisdn":"79000000001","newSession":%v,"userData":%q}`, begins, text)
				var answer struct {
					Message         string
					ContinueSession bool
				}
				request := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/ussd/http/at", strings.NewReader(body))
				if err := json.Unmarshal([]byte(ask(r, request)), &answer); err != nil {
					t.Fatal(err)
				}
				return fmt.Sprintf("%v %s", answer.ContinueSession, answer.Message)
			}
			expect(t, "a new session", say(true, "*377*888#"), "true "+firstPage)
			expect(t, "a key", say(false, "1"), "true "+leafPage)
			expect(t, "another", say(false, "1"), "true "+deeperPage)
			say(false, "00")
			expect(t, "out", say(false, "0"), "false Goodbye!")
		})
	})
	t.Run("cellulant", func(t *testing.T) {
		withAggregator(t, func(r *rig) {
			r.server.links["at"].speaks = cellulant()
			say := func(op, text string) string {
				query := "?MSISDN=79000000001&sessionID=s1&opCode=" + op + "&INPUT=" + text
				return ask(r, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/ussd/http/at"+query, nil))
			}
			expect(t, "a begin", say("BEG", "%2A377%2A888%23"), "1|"+firstPage+"|0|777|null|null")
			expect(t, "a key", say("CON", "1"), "1|"+leafPage+"|0|777|null|null")
			r.open(1)
			expect(t, "an abort", say("ABO", ""), "")
			r.open(0)
		})
	})
}
