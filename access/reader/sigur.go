package reader

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/ledger/pg"
	"zvonok/templates"
)

// This file knows Sigur, and nothing of passes (spec/door.md, Adapters). A Sigur
// server pushes what its controllers have recorded, in batches of
//
//	{"logs":[{"logId":7,"time":1763788503,"empId":"p-17","internalEmpId":3,"accessPoint":1,"direction":1,"keyHex":"9A3F105C"}]}
//
// and is answered {"confirmedLogId":7}: all up to that number is ours now. What
// is not confirmed comes again, so the push is at least once and cumulative. The
// number of a log entry becomes the number of an event of that access point's
// device, and the gate lets each through once. An access point whose device is
// revoked does not hold up the doors behind it in the log: what it reports goes
// to quarantine, where the school's staff find it, and is confirmed then. When a controller asks whether to
// open, {"keyHex":"9A3F105C","accessPoint":1,"direction":1}, it is answered
// {"allow":true,"message":"Петрова М."}.

// SigurSite is a Sigur server.
type SigurSite struct {
	// Points are its access points and the devices that stand for them here. An
	// access point that is not named is none of ours: its entries are confirmed
	// and not looked at.
	Points map[int64]DeviceID
	// In and Out are how the site codes directions; another code is a reader that
	// does not know.
	In, Out int
}

// maxLogs bounds a push; Sigur's own batches are some hundreds.
const maxLogs = 10_000

// Sigur answers Sigur servers. A server authorises itself with the key of any
// one of the devices that stand for its access points, as a bearer token or as
// the password of HTTP Basic, which is what Sigur's settings offer.
type Sigur struct {
	in    *Intake
	sites []SigurSite
}

// Sigur returns the adapter of these sites. The routes are SigurEvents and SigurAccess.
func (in *Intake) Sigur(sites []SigurSite) *Sigur { return &Sigur{in, sites} }

// The routes of the adapter.
const (
	SigurEvents = "/sigur/events"
	SigurAccess = "/sigur/access"
)

// Register puts the routes on a mux.
func (s *Sigur) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST "+SigurEvents, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, maxBody, eventsRoute, s.events) })
	mux.HandleFunc("POST "+SigurAccess, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, maxQuestion, authorizeRoute, s.access) })
}

// sigurLog is an entry of a controller's log.
type sigurLog struct {
	LogID       *int64      `json:"logId"`
	Time        int64       `json:"time"` // Unix seconds
	EmpID       sigurNumber `json:"empId"`
	AccessPoint int64       `json:"accessPoint"`
	Direction   int         `json:"direction"`
	KeyHex      string      `json:"keyHex"`
}

// sigurNumber is the id of a person in the register that Sigur was filled from:
// a text in some versions, a number in others.
type sigurNumber string

// UnmarshalJSON takes both.
func (n *sigurNumber) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err == nil {
		*n = sigurNumber(text)
		return nil
	}
	var number *json.Number
	if err := json.Unmarshal(raw, &number); err != nil {
		return err
	}
	if number != nil {
		*n = sigurNumber(*number)
	}
	return nil
}

// knownDevice is a device of the settings, whose key may be revoked.
type knownDevice struct {
	Device
	revoked bool
}

// serve reads a request of a site and answers it.
func (s *Sigur) serve(
	w http.ResponseWriter, r *http.Request, limit int64, route string,
	answer func(context.Context, SigurSite, map[DeviceID]*knownDevice, []byte) (any, error),
) {
	began := s.in.now()
	document, err := func() (any, error) {
		if err := checkBody(r, limit); err != nil {
			return nil, err
		}
		authorization := r.Header.Get("Authorization")
		if _, password, basic := r.BasicAuth(); basic {
			authorization = "Bearer " + password
		}
		device, err := s.in.keys.device(r.Context(), authorization)
		if err != nil {
			return nil, err
		}
		s.in.see(device.ID, r)
		site, devices, err := s.site(r.Context(), device.ID)
		if err != nil {
			return nil, err
		}
		places := s.in.uploads
		if route == authorizeRoute {
			places = s.in.questions
		}
		leave, err := places.take(device.ID, bodySize(r, limit))
		if err != nil {
			return nil, err
		}
		defer leave()
		body, err := s.in.readBody(w, r, limit)
		if err != nil {
			return nil, err
		}
		return answer(r.Context(), site, devices, body)
	}()
	if err != nil {
		s.in.refuse(w, r, route, err)
		return
	}
	s.in.answer(w, route, began, document)
}

// site finds the site of a device, and its devices.
func (s *Sigur) site(ctx context.Context, id DeviceID) (SigurSite, map[DeviceID]*knownDevice, error) {
	for _, site := range s.sites {
		ids := make([]DeviceID, 0, len(site.Points))
		for _, device := range site.Points {
			ids = append(ids, device)
		}
		if slices.Contains(ids, id) {
			devices, err := devicesByID(ctx, s.in.pool, ids)
			return site, devices, err
		}
	}
	return SigurSite{}, nil, errKey // a key of ours, and of no Sigur
}

// devicesByID reads devices, those with revoked keys too.
func devicesByID(ctx context.Context, q pg.Querier, ids []DeviceID) (map[DeviceID]*knownDevice, error) {
	rows, err := q.Query(ctx, `
		SELECT d.id, d.name, d.kind, b.code, d.building_id, b.organisation_id, d.profile, d.revoked_at IS NOT NULL
		  FROM reader.device d
		  JOIN ledger.building b ON b.id = d.building_id
		 WHERE d.id = ANY($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	devices := make(map[DeviceID]*knownDevice, len(ids))
	var (
		d       knownDevice
		profile string
	)
	_, err = pgx.ForEachRow(rows, []any{
		&d.ID, &d.Name, &d.Kind, &d.Building, &d.BuildingID, &d.Organisation, &profile, &d.revoked,
	}, func() (err error) {
		device := d
		device.Profile, err = access.ParseProfile(profile)
		devices[d.ID] = &device
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	return devices, nil
}

// confirmation answers a push.
type confirmation struct {
	ConfirmedLogID int64 `json:"confirmedLogId"`
}

// events stores a push in the order of its numbers, a thousand a transaction, and
// confirms as far as it got.
func (s *Sigur) events(ctx context.Context, site SigurSite, devices map[DeviceID]*knownDevice, body []byte) (any, error) {
	var push struct {
		Logs []sigurLog `json:"logs"`
	}
	if err := json.Unmarshal(body, &push); err != nil {
		return nil, locate(err, body, "body")
	}
	if push.Logs == nil {
		return nil, &mistake{"body.logs", "required"}
	}
	if len(push.Logs) > maxLogs {
		return nil, errTooMany
	}
	for i, log := range push.Logs {
		if log.LogID == nil || *log.LogID < 0 || *log.LogID > maxSeq {
			return nil, &mistake{fmt.Sprintf("body.logs[%d].logId", i), "want a number from 0 to 2^53"}
		}
	}
	slices.SortStableFunc(push.Logs, func(a, b sigurLog) int { return cmp.Compare(*a.LogID, *b.LogID) })
	var done confirmation
	for logs := range slices.Chunk(push.Logs, maxEvents) {
		var uploads []*upload
		byDevice := map[DeviceID]*upload{}
		now := s.in.now()
		for _, log := range logs {
			device := devices[site.Points[log.AccessPoint]]
			event, ours := site.event(log, device)
			if device == nil || !ours {
				continue
			}
			raw, err := json.Marshal(event)
			if err != nil {
				return nil, fmt.Errorf("keep a log entry: %w", err)
			}
			u := byDevice[device.ID]
			if u == nil {
				u = &upload{device: &device.Device, clock: clock{receivedAt: now}}
				byDevice[device.ID] = u
				uploads = append(uploads, u)
			}
			fact := read(&event, raw, u.device, u.clock)
			if device.revoked {
				fact.rejection = Rejection{Seq: fact.seq, Code: DeviceRevoked, Message: "the key of the access point's device is revoked"}
			}
			u.facts = append(u.facts, fact)
		}
		if err := s.in.countForeign(ctx, uploads); err != nil {
			return nil, err
		}
		if _, err := s.in.storeAll(ctx, uploads); err != nil {
			if done.ConfirmedLogID > 0 {
				return done, nil // the rest comes again
			}
			return nil, err
		}
		done.ConfirmedLogID = *logs[len(logs)-1].LogID
	}
	return done, nil
}

// event turns an entry into an event of the neutral intake. One that names
// nobody, such as a door opened by its button, is no event of ours.
func (site SigurSite) event(log sigurLog, device *knownDevice) (event DeviceEvent, ours bool) {
	event = DeviceEvent{
		Seq: log.LogID, Type: "pass", At: time.Unix(log.Time, 0).UTC().Format(time.RFC3339), Direction: "unknown",
	}
	switch log.Direction {
	case site.In:
		event.Direction = "in"
	case site.Out:
		event.Direction = "out"
	}
	switch {
	case log.KeyHex != "" && device != nil:
		event.Card = trimKey(log.KeyHex, device.Profile)
	case log.EmpID != "" && log.EmpID != "0":
		event.Type, event.Person = "admitted", string(log.EmpID) // opened by the guard for somebody
	default:
		return event, false
	}
	return event, true
}

// trimKey drops the zeros by which Sigur fills a shortened key up.
func trimKey(key string, profile access.Profile) string {
	key = strings.TrimPrefix(strings.ToUpper(key), "0X")
	if profile.Kept == 0 {
		return key
	}
	for len(key) > 2*profile.Kept && strings.HasPrefix(key, "0") {
		key = key[1:]
	}
	return key
}

// storeAll stores uploads of several devices in one transaction.
func (in *Intake) storeAll(ctx context.Context, uploads []*upload) ([]answer, error) {
	if len(uploads) == 0 {
		return nil, nil
	}
	select {
	case in.large <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-in.large }()
	answers, err := in.storeUploads(context.WithoutCancel(ctx), uploads)
	if err != nil {
		return nil, err
	}
	for i, a := range answers {
		if a.err != nil {
			return nil, a.err
		}
		in.contacts.note(uploads[i].device.ID, uploads[i].clock)
	}
	in.well(ctx)
	return answers, nil
}

// verdict answers a controller that asks whether to open.
type verdict struct {
	Allow   bool   `json:"allow"`
	Message string `json:"message"`
}

// access decides on a card.
func (s *Sigur) access(ctx context.Context, site SigurSite, devices map[DeviceID]*knownDevice, body []byte) (any, error) {
	var ask sigurLog
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, locate(err, body, "body")
	}
	if ask.KeyHex == "" {
		return nil, &mistake{"body.keyHex", "required"}
	}
	device := devices[site.Points[ask.AccessPoint]]
	if device == nil || device.revoked {
		return nil, &mistake{"body.accessPoint", strconv.FormatInt(ask.AccessPoint, 10) + " is not in the settings of this site, or its device is revoked"}
	}
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	question := asked{Question: Question{Card: trimKey(ask.KeyHex, device.Profile), Direction: door.In.String()}}
	if ask.Direction != site.In {
		// A way that is not known to lead in may lead out, where more is asked.
		question.Direction, question.leaves = door.Out.String(), true
	}
	decision, err := s.in.decide(ctx, &device.Device, question)
	if err != nil {
		return nil, fmt.Errorf("decide on a card: %w", err)
	}
	s.in.well(ctx)
	if decision.Allow {
		return verdict{true, decision.Person.Name}, nil
	}
	return verdict{false, templates.Refusal(string(decision.Reason))}, nil
}
