package office

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/reader"
	"zvonok/ledger"
)

// Watch is what staff must look at of one day.
type Watch struct {
	Alarms     []Alarm     `json:"alarms" nullable:"false" doc:"A kindergarten child went out without a listed companion."`
	Suspicions []Suspicion `json:"suspicions" nullable:"false" doc:"A card turned a door twice within seconds: perhaps a second child passed on it."`
	Denials    []Denial    `json:"denials" nullable:"false" doc:"A door refused somebody; at most 500, the latest first."`
	// Whatever the day asked for.
	Devices []reader.RaisedAlarm `json:"devices" nullable:"false" doc:"A device's key may be stolen, or the device cloned: revoke the key and give the device a new one, then settle the alarm. All that are open, whatever the day."`
}

// Alarm is one alarm.
type Alarm struct {
	Event     ledger.EventID `json:"event"`
	At        time.Time      `json:"at"`
	Person    string         `json:"person"`
	Name      string         `json:"name"`
	Group     string         `json:"group"`
	Kind      door.Alarm     `json:"kind" enum:"no_companion,unlisted_companion,young_companion"`
	SettledAt time.Time      `json:"settled_at,omitzero"`
	SettledBy string         `json:"settled_by,omitempty"`
}

// Suspicion is one card that turned a door twice.
type Suspicion struct {
	Event    ledger.EventID `json:"event"`
	At       time.Time      `json:"at"`
	Person   string         `json:"person"`
	Name     string         `json:"name"`
	Group    string         `json:"group"`
	Building string         `json:"building"`
}

// Denial is one refusal.
type Denial struct {
	Event    ledger.EventID `json:"event"`
	At       time.Time      `json:"at"`
	Building string         `json:"building"`
	Card     string         `json:"card"`
	Person   string         `json:"person,omitempty" doc:"Whose card it is, when it is somebody's here."`
	Name     string         `json:"name,omitempty"`
	Reason   string         `json:"reason"`
}

// Quarantined is a rejected event.
type Quarantined struct {
	Event      ledger.EventID  `json:"event"`
	Device     reader.DeviceID `json:"device"`
	Seq        int64           `json:"seq"`
	Code       reader.Code     `json:"code"`
	Message    string          `json:"message"`
	Body       json.RawMessage `json:"body" doc:"As the device sent it; null once it has been destroyed."`
	ReceivedAt time.Time       `json:"received_at"`
}

func (r registrar) watch() {
	type watchBody struct{ Body Watch }
	route(r, huma.Operation{
		OperationID: "staff-watch", Method: http.MethodGet, Path: "/api/v1/staff/watch",
		Summary: "What staff must look at: alarms, second passes, refused cards, devices that may be cloned",
	}, func(ctx context.Context, v visit, input *struct {
		Day string `query:"day" format:"date" doc:"Without it: today."`
	},
	) (*watchBody, error) {
		watch, err := r.office.watch(ctx, v, input.Day)
		return &watchBody{watch}, err
	})
	route(r, huma.Operation{
		OperationID: "staff-settle-alarm", Method: http.MethodPost, Path: "/api/v1/staff/alarms/{event}/settle",
		Summary: "Note that an alarm has been looked after", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		Event int64 `path:"event"`
	},
	) (*struct{}, error) {
		return nil, door.Settle(ctx, r.office.Pool, v.organisation(), ledger.EventID(input.Event), v.by(), v.now)
	})
	route(r, huma.Operation{
		OperationID: "staff-settle-device-alarm", Method: http.MethodPost, Path: "/api/v1/staff/device-alarms/{alarm}/settle",
		Summary: "Note that an alarm of a device has been looked after", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		Alarm int64 `path:"alarm"`
	},
	) (*struct{}, error) {
		return nil, reader.SettleAlarm(ctx, r.office.Pool, v.organisation(), input.Alarm, v.by(), v.now)
	})
	type quarantineBody struct {
		Body struct {
			Events []Quarantined `json:"events" nullable:"false"`
		}
	}
	route(r, huma.Operation{
		OperationID: "staff-quarantine", Method: http.MethodGet, Path: "/api/v1/staff/quarantine",
		Summary: "Rejected events that nobody has looked after", Description: "At most 500, the latest first.",
	}, func(ctx context.Context, v visit, _ *struct{}) (*quarantineBody, error) {
		found, err := reader.Quarantine(ctx, r.office.Pool, v.organisation(), maxList)
		if err != nil {
			return nil, err
		}
		output := &quarantineBody{}
		output.Body.Events = []Quarantined{}
		for _, q := range found {
			output.Body.Events = append(output.Body.Events, Quarantined{q.Event, q.Device, q.Seq, q.Code, q.Message, q.Body, q.ReceivedAt})
		}
		return output, nil
	})
	route(r, huma.Operation{
		OperationID: "staff-settle-quarantined", Method: http.MethodPost, Path: "/api/v1/staff/quarantine/{event}/settle",
		Summary: "Note that a rejected event has been looked after", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		Event int64 `path:"event"`
	},
	) (*struct{}, error) {
		return nil, reader.SettleQuarantined(ctx, r.office.Pool, v.organisation(), ledger.EventID(input.Event), v.by(), v.now)
	})
	type absencesBody struct {
		Body struct {
			Batches []door.AbsenceBatch `json:"batches" nullable:"false"`
		}
	}
	route(r, huma.Operation{
		OperationID: "staff-absences", Method: http.MethodGet, Path: "/api/v1/staff/absences",
		Summary: "The news of absences that waits for a person",
		Description: "When far fewer came than usual, or a reader was silent, the fault may be the system's: parents are told " +
			"only when somebody releases the batch.",
	}, func(ctx context.Context, v visit, _ *struct{}) (*absencesBody, error) {
		held, err := door.HeldAbsences(ctx, r.office.Pool, v.organisation())
		output := &absencesBody{}
		output.Body.Batches = append([]door.AbsenceBatch{}, held...)
		return output, err
	})
	route(r, huma.Operation{
		OperationID: "staff-decide-absences", Method: http.MethodPost, Path: "/api/v1/staff/absences/{batch}/{decision}",
		Summary: "Release or cancel a held batch", Errors: []int{404},
	}, func(ctx context.Context, v visit, input *struct {
		Batch    int64  `path:"batch"`
		Decision string `path:"decision" enum:"release,cancel"`
	},
	) (*struct{}, error) {
		return nil, r.office.change(ctx, func(tx pgx.Tx) error {
			return r.office.Recorder.DecideAbsence(ctx, tx, v.organisation(), input.Batch, input.Decision == "release", v.by(), v.now)
		})
	})
}

func (o *Office) watch(ctx context.Context, v visit, date string) (w Watch, err error) {
	zone, err := o.zone(ctx, v)
	if err != nil {
		return w, err
	}
	local := v.now.In(zone)
	if date != "" {
		if local, err = day("day", date); err != nil {
			return w, err
		}
	}
	from := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, zone)
	until := time.Date(local.Year(), local.Month(), local.Day()+1, 0, 0, 0, 0, zone)
	alarms, err := door.RaisedAlarms(ctx, o.Pool, v.organisation(), from)
	if err != nil {
		return w, err
	}
	suspicions, err := door.Suspicions(ctx, o.Pool, v.organisation(), from, until)
	if err != nil {
		return w, err
	}
	denials, err := door.Denials(ctx, o.Pool, v.organisation(), from, until, maxList)
	if err != nil {
		return w, err
	}
	devices, err := reader.OpenAlarms(ctx, o.Pool, v.organisation())
	if err != nil {
		return w, err
	}
	var ids []ledger.PersonID
	for _, a := range alarms {
		ids = append(ids, a.Person)
	}
	for _, s := range suspicions {
		ids = append(ids, s.Person)
	}
	for _, r := range denials {
		if r.Person != 0 {
			ids = append(ids, r.Person)
		}
	}
	people, err := ledger.People(ctx, o.Pool, ids)
	if err != nil {
		return w, err
	}
	seen := make([]ledger.Person, 0, len(people))
	for _, p := range people {
		seen = append(seen, p)
	}
	if err := v.look(ctx, o.Pool, "watch", access.Staff, seen...); err != nil {
		return w, err
	}
	name := func(p ledger.Person) string { return p.FamilyName + " " + p.GivenName }
	w = Watch{[]Alarm{}, []Suspicion{}, []Denial{}, append([]reader.RaisedAlarm{}, devices...)}
	for _, a := range alarms {
		if p := people[a.Person]; a.At.Before(until) {
			w.Alarms = append(w.Alarms, Alarm{a.Event, a.At, p.Code, name(p), p.Group, a.Kind, a.SettledAt, a.SettledBy})
		}
	}
	for _, s := range suspicions {
		p := people[s.Person]
		w.Suspicions = append(w.Suspicions, Suspicion{s.Event, s.At, p.Code, name(p), p.Group, s.Building})
	}
	for _, r := range denials {
		n := Denial{Event: r.Event, At: r.At, Building: r.Building, Card: string(r.Card), Reason: r.Reason}
		if p, ok := people[r.Person]; ok {
			n.Person, n.Name = p.Code, name(p)
		}
		w.Denials = append(w.Denials, n)
	}
	return w, nil
}
