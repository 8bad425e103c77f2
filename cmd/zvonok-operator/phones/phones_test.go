package phones

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zvonok/gateway/smpp/smpptest"
)

// patience bounds every wait of a test; nothing that works comes near it, however busy the machine is.
const patience = time.Minute

// browser is somebody at a page of phones without its script.
type browser struct {
	t   *testing.T
	url string
}

// page opens a page over a box whose gateway is at this address; nobody is bound to the operator.
func page(t *testing.T, gateway string) *browser {
	t.Helper()
	box, err := StartBox(BoxConfig{Operator: smpptest.Config{SystemID: "school"}, Profile: "plain-its", ShortCode: "377"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := box.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	opened, err := box.Open(Config{
		City: City{Code: "*377*888#"}, Gateway: gateway, Aggregator: Aggregator{Link: "at", Secret: "secret"},
		StateFile: filepath.Join(t.TempDir(), "state.json"), Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(opened.Handler())
	t.Cleanup(server.Close)
	return &browser{t, server.URL}
}

// dial types something on a phone and returns the last screen.
func (b *browser) dial(line, text string) Screen {
	b.t.Helper()
	b.post("/dial", map[string]string{"number": "+79000000001", "text": text, "line": line})
	return b.last()
}

func (b *browser) post(path string, body map[string]string) {
	b.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	response, err := http.Post(b.url+path, "application/json", strings.NewReader(string(data)))
	if err != nil {
		b.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		b.t.Fatalf("%s is answered with %s", path, response.Status)
	}
}

func (b *browser) last() Screen {
	b.t.Helper()
	response, err := http.Get(b.url + "/state")
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	var state struct{ Screens map[string][]Screen }
	if err := json.NewDecoder(response.Body).Decode(&state); err != nil {
		b.t.Fatal(err)
	}
	screens := state.Screens["+79000000001"]
	return screens[len(screens)-1]
}

func TestAPhoneWithoutAGatewayIsToldSo(t *testing.T) {
	t.Parallel()
	b := page(t, "http://127.0.0.1:1")
	for _, test := range []struct{ line, text, want string }{
		{"smpp", "1", "no dialogue is open"},
		{"smpp", "*377*888#", "no bind"},
		{"http", "1", "no dialogue is open"},
		{"http", "*377*888#", "call the gateway"},
	} {
		got := b.dial(test.line, test.text)
		if !got.End || got.Mine || !strings.Contains(got.Text, test.want) {
			t.Errorf("%s by %s shows %+v, want %q", test.text, test.line, got, test.want)
		}
	}
}

// Contract section 7: the form of Africa's Talking, with all inputs so far, what was dialled past the code among them.
func TestTheAggregatorSaysEverythingTypedSoFar(t *testing.T) {
	t.Parallel()
	var heard []string
	answers := []string{
		"CON first", "CON second", "END last", "CON first", "", "CON first", "MAYBE", "CON first", "CON second",
	}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ussd/http/at" || r.Header.Get("Authorization") != "Bearer secret" || r.ParseForm() != nil {
			t.Errorf("called %s", r.URL)
		}
		form := r.PostForm
		heard = append(heard, strings.Join([]string{
			form.Get("sessionId"), form.Get("phoneNumber"), form.Get("serviceCode"), form.Get("text"), form.Get("status"),
		}, " "))
		answer := answers[0]
		answers = answers[1:]
		if form.Has("status") {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer gateway.Close()
	b := page(t, gateway.URL)
	const prefix = " +79000000001 *377*888# "
	for _, step := range []struct {
		dial, heard, text string
		end               bool
	}{
		{"*377*888#", "page-1" + prefix + " ", "first", false},
		{"1", "page-1" + prefix + "1 ", "second", false},
		{"2", "page-1" + prefix + "1*2 ", "last", true},
		{"*377*888*3*1#", "page-2" + prefix + "3*1 ", "first", false},
		{"", "page-2" + prefix + " Incomplete", "✕", true}, // hangs up
		{"*377*888#", "page-3" + prefix + " ", "first", false},
		{"1", "page-3" + prefix + "1 ", "neither CON nor END", true},
		{"*377*888#", "page-4" + prefix + " ", "first", false},
		{"#377*888*2#", "page-5 +79000000001 #377*888# 2 ", "second", false}, // in Latin letters
	} {
		var got Screen
		if step.dial == "" {
			b.post("/hangup", map[string]string{"number": "+79000000001", "line": "http"})
			got = b.last()
		} else {
			got = b.dial("http", step.dial)
		}
		if last := heard[len(heard)-1]; last != step.heard {
			t.Errorf("%q is told as %q, want %q", step.dial, last, step.heard)
		}
		if !strings.Contains(got.Text, step.text) || got.End != step.end {
			t.Errorf("%q shows %+v, want %q, end %v", step.dial, got, step.text, step.end)
		}
	}
}
