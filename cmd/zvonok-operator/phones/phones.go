// Package phones is the page of phones: the handsets of a demo city in a
// browser, and beside them its doors and tills.
//
// The page is a stranger to the gateway. It learns of SMS and USSD screens from
// an operator in a box, which speaks SMPP with the gateway; it taps cards and
// sells lunches as any device does, through the device interface with a device
// key. What a browser shows is kept in memory only.
package phones

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Limits of the page.
const (
	inboxSize    = 50               // messages a phone keeps; the oldest go first
	screenSize   = 20               // USSD lines a phone keeps
	listenerSize = 256              // events a browser may lag behind before it is cut off and reloads
	bodyLimit    = 16 << 10         // octets of a request from the page
	keepAlive    = 15 * time.Second // comment lines that keep the event stream open through proxies
	deviceTime   = 15 * time.Second // an upload to the gateway takes at most this
)

// City is what the page shows: people, their phones, and the devices it plays.
type City struct {
	Code    string   `json:"code"` // the USSD service code
	HTTP    bool     `json:"http"` // there is an aggregator besides the operator; set by New
	Schools []School `json:"schools"`
	Phones  []Phone  `json:"phones"`
}

// School is an organisation with its devices and children.
type School struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Doors    []Device `json:"doors"`
	Tills    []Device `json:"tills"`
	Children []Child  `json:"children"`
}

// Device is a door or a till that the page plays. The key never reaches the browser.
type Device struct {
	Name string `json:"name"`
	Key  string `json:"-"`
}

// Child has a card and the phones of those who may know of it.
type Child struct {
	Name       string   `json:"name"`
	Group      string   `json:"group"`
	Card       string   `json:"card"`
	Phones     []string `json:"phones"`               // E.164 with "+"
	Companions []string `json:"companions,omitempty"` // cards of those who may collect it (kindergartens)
}

// Phone is a handset.
type Phone struct {
	Number string `json:"number"` // E.164 with "+"
	Owner  string `json:"owner"`
}

// Message is an SMS on a phone.
type Message struct {
	From string    `json:"from"`
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// Screen is a line of a USSD dialogue: what was dialled, or what came back.
type Screen struct {
	Mine bool   `json:"mine"` // dialled or typed on the phone
	Text string `json:"text"`
	End  bool   `json:"end"`
	// Note says in what form the screen came, "UCS-2, 63/70"; empty when nothing is to be said.
	Note string    `json:"note,omitempty"`
	At   time.Time `json:"at"`
}

// Config is what a Page needs.
type Config struct {
	City    City
	Gateway string // base URL of the device interface, as in http://127.0.0.1:8080
	// Dial plays a phone's keys to the operator: a service code begins a
	// dialogue, anything else answers the open one.
	Dial func(ctx context.Context, number, text string) error
	// HangUp closes the phone's open dialogue, if there is one.
	HangUp func(ctx context.Context, number string) error
	// Aggregator, when it has a link, offers the phones a second way: USSD over HTTP.
	Aggregator Aggregator
	// Reply sends an SMS from a phone to the gateway.
	Reply func(ctx context.Context, number, text string) error
	// StateFile keeps the devices' event numbers over a restart.
	StateFile string
	Log       *slog.Logger
	Now       func() time.Time
}

// Page is the server of the page. Make it with [New].
type Page struct {
	config Config
	client *http.Client
	keys   map[string]string // device name to key
	http   *aggregator       // nil when there is none

	mu        sync.Mutex
	inbox     map[string][]Message
	screens   map[string][]Screen
	listeners map[chan []byte]struct{}
	serial    int64            // of the last event told
	sequence  map[string]int64 // device name to its last event number
}

// New returns a page of phones. It fails when the state file cannot be read.
func New(config Config) (*Page, error) {
	p := &Page{
		config: config, client: &http.Client{Timeout: deviceTime}, keys: map[string]string{},
		inbox: map[string][]Message{}, screens: map[string][]Screen{},
		listeners: map[chan []byte]struct{}{}, sequence: map[string]int64{},
	}
	if config.Aggregator.Link != "" {
		p.config.City.HTTP = true
		p.http = &aggregator{
			Aggregator: config.Aggregator, client: p.client, gateway: config.Gateway, code: config.City.Code,
			sessions: map[string]*session{},
		}
	}
	for _, school := range config.City.Schools {
		for _, device := range slices.Concat(school.Doors, school.Tills) {
			p.keys[device.Name] = device.Key
		}
	}
	data, err := os.ReadFile(config.StateFile)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &p.sequence); err != nil {
			return nil, fmt.Errorf("read the devices' event numbers from %s: %w", config.StateFile, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("read the devices' event numbers: %w", err)
	}
	return p, nil
}

// Received puts an SMS on a phone.
func (p *Page) Received(number string, m Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inbox[number] = last(append(p.inbox[number], m), inboxSize)
	p.tell("sms", map[string]any{"number": number, "message": m})
}

// Shown puts a USSD screen on a phone.
func (p *Page) Shown(number string, s Screen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.screens[number] = last(append(p.screens[number], s), screenSize)
	p.tell("ussd", map[string]any{"number": number, "screen": s})
}

func last[T any](list []T, n int) []T {
	return list[max(0, len(list)-n):]
}

// tell sends an event to every browser; p.mu is held. A browser that lags too
// far behind is cut off: it connects again and loads the whole state.
func (p *Page) tell(kind string, data map[string]any) {
	p.serial++
	data["serial"] = p.serial
	body, err := json.Marshal(data)
	if err != nil {
		p.config.Log.Error("encode page event", "error", err)
		return
	}
	event := fmt.Appendf(nil, "event: %s\ndata: %s\n\n", kind, body)
	for listener := range p.listeners {
		select {
		case listener <- event:
		default:
			delete(p.listeners, listener)
			close(listener)
		}
	}
}

//go:embed static
var static embed.FS

// Handler serves the page.
func (p *Page) Handler() http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /state", p.state)
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("POST /dial", p.dial)
	mux.HandleFunc("POST /hangup", p.hangUp)
	mux.HandleFunc("POST /reply", p.reply)
	mux.HandleFunc("POST /tap", p.tap)
	mux.HandleFunc("POST /sale", p.sale)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		// The page plays doors and phones: another site must not be able to.
		http.NewCrossOriginProtection().Handler(mux).ServeHTTP(w, r)
	})
}

func (p *Page) state(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	body, err := json.Marshal(map[string]any{
		"city": p.config.City, "inbox": p.inbox, "screens": p.screens, "serial": p.serial,
	})
	p.mu.Unlock()
	if err != nil {
		http.Error(w, "encode state", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	listener := make(chan []byte, listenerSize)
	p.mu.Lock()
	p.listeners[listener] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.listeners, listener)
		p.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	if _, err := io.WriteString(w, ": listening\n\n"); err != nil {
		return
	}
	ticker := time.NewTicker(keepAlive)
	defer ticker.Stop()
	for {
		if err := control.Flush(); err != nil {
			return
		}
		var event []byte
		select {
		case <-r.Context().Done():
			return
		case e, open := <-listener:
			if !open {
				return
			}
			event = e
		case <-ticker.C:
			event = []byte(": still here\n\n")
		}
		if _, err := w.Write(event); err != nil {
			return
		}
	}
}

func (p *Page) dial(w http.ResponseWriter, r *http.Request) {
	var body struct{ Number, Text, Line string }
	if !read(w, r, &body) {
		return
	}
	p.Shown(body.Number, Screen{Mine: true, Text: body.Text, At: p.config.Now()})
	var err error
	if body.Line == lineHTTP && p.http != nil {
		var screen Screen
		if screen, err = p.http.ask(r.Context(), body.Number, body.Text); err == nil {
			screen.At, screen.Note = p.config.Now(), "HTTP"
			p.Shown(body.Number, screen)
		}
	} else {
		err = p.config.Dial(r.Context(), body.Number, body.Text)
	}
	if err != nil {
		p.Shown(body.Number, Screen{Text: "MMI: " + err.Error(), End: true, At: p.config.Now()})
	}
	w.WriteHeader(http.StatusNoContent)
}

// lineHTTP in a request of the page means the aggregator; anything else is the operator.
const lineHTTP = "http"

func (p *Page) hangUp(w http.ResponseWriter, r *http.Request) {
	var body struct{ Number, Line string }
	if !read(w, r, &body) {
		return
	}
	hangUp := p.config.HangUp
	if body.Line == lineHTTP && p.http != nil {
		hangUp = p.http.hangUp
	}
	if err := hangUp(r.Context(), body.Number); err != nil {
		p.config.Log.Warn("hang up on the page of phones", "error", err)
	}
	p.Shown(body.Number, Screen{Mine: true, Text: "✕", End: true, At: p.config.Now()})
	w.WriteHeader(http.StatusNoContent)
}

func (p *Page) reply(w http.ResponseWriter, r *http.Request) {
	var body struct{ Number, Text string }
	if !read(w, r, &body) {
		return
	}
	if err := p.config.Reply(r.Context(), body.Number, body.Text); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *Page) tap(w http.ResponseWriter, r *http.Request) {
	var body struct{ Device, Card, Direction, Companion string }
	if !read(w, r, &body) {
		return
	}
	event := map[string]any{"type": "pass", "card": body.Card, "direction": body.Direction}
	if body.Companion != "" {
		event["companion_card"] = body.Companion
	}
	p.upload(w, r, body.Device, event)
}

func (p *Page) sale(w http.ResponseWriter, r *http.Request) {
	var body struct{ Device, Card, Kind, Meal, Item, Total string }
	if !read(w, r, &body) {
		return
	}
	event := map[string]any{"type": "sale", "card": body.Card, "kind": body.Kind, "total": body.Total}
	if body.Meal != "" {
		event["meal"] = body.Meal
	}
	if body.Item != "" {
		event["items"] = []map[string]any{{"code": "page", "name": body.Item, "quantity": 1, "price": body.Total}}
	}
	p.upload(w, r, body.Device, event)
}

// upload sends one event as the named device and passes the gateway's answer on.
func (p *Page) upload(w http.ResponseWriter, r *http.Request, device string, event map[string]any) {
	key, ok := p.keys[device]
	if !ok {
		http.Error(w, "no such device", http.StatusNotFound)
		return
	}
	now := p.config.Now()
	seq, err := p.next(device)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	event["seq"], event["at"] = seq, now.Format(time.RFC3339)
	body, err := json.Marshal(map[string]any{"sent_at": now.Format(time.RFC3339), "events": []any{event}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, p.config.Gateway+"/api/v1/events", bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		http.Error(w, "the gateway does not answer", http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.WriteHeader(response.StatusCode)
	io.Copy(w, response.Body)
}

// next gives out the device's next event number, after it has been written down:
// a number used twice would be taken for a repeat.
func (p *Page) next(device string) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sequence[device]++
	data, err := json.Marshal(p.sequence)
	if err != nil {
		return 0, fmt.Errorf("keep event numbers: %w", err)
	}
	temporary := filepath.Join(filepath.Dir(p.config.StateFile), "."+filepath.Base(p.config.StateFile)+".new")
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return 0, fmt.Errorf("keep event numbers: %w", err)
	}
	if err := os.Rename(temporary, p.config.StateFile); err != nil {
		return 0, fmt.Errorf("keep event numbers: %w", err)
	}
	return p.sequence[device], nil
}

func read(w http.ResponseWriter, r *http.Request, body any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyLimit)).Decode(body); err != nil {
		http.Error(w, "the request is not the page's own", http.StatusBadRequest)
		return false
	}
	return true
}
