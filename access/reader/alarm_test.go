package reader_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/access"
	"zvonok/access/door"
	"zvonok/access/reader"
	"zvonok/access/reader/apidoc"
	"zvonok/ledger"
	"zvonok/ledger/meal"
)

// process is a further process of the gateway on the site's database, with a log
// of its own.
func (s *site) process() (url string, log *bytes.Buffer, stop func()) {
	s.t.Helper()
	log = &bytes.Buffer{}
	intake := reader.NewIntake(reader.Config{
		Pool: s.pool, River: s.jobs, Recorder: door.NewRecorder(s.jobs), Canteen: meal.NewCanteen(ledger.NewBook(s.jobs), s.jobs),
		Log: slog.New(slog.NewJSONHandler(log, nil)), Metrics: reader.NewMetrics(prometheus.NewPedanticRegistry()),
		Now: func() time.Time { return s.now },
	})
	mux := http.NewServeMux()
	intake.Register(apidoc.New(mux, "test"))
	server := httptest.NewServer(mux)
	stop = func() { server.Close(); intake.Close() }
	s.t.Cleanup(stop)
	return server.URL, log, stop
}

// postFrom uploads from a loopback address of its own.
func (d device) postFrom(address, url string, events ...string) reply {
	d.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, url+"/api/v1/events",
		strings.NewReader(document(d.now, events...)))
	must(d.t, err)
	request.Header.Set("Authorization", "Bearer "+d.key)
	response, err := transport.RoundTrip(request)
	must(d.t, err)
	defer response.Body.Close()
	r := reply{status: response.StatusCode}
	must(d.t, json.NewDecoder(response.Body).Decode(&r))
	return r
}

func (s *site) alarms() []reader.RaisedAlarm {
	s.t.Helper()
	alarms, err := reader.OpenAlarms(s.t.Context(), s.pool, s.organisation)
	must(s.t, err)
	return alarms
}

// Row 55 of spec/reliability.md: a stolen key replays from a second address while
// the device is heard from its own, by another process. Staff are told, once, with
// ids only; nobody's events are refused.
func TestAStolenKeyUsedFromASecondAddressRaisesAnAlarmAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	here, _, stopHere := s.process()
	there, log, stopThere := s.process()
	if r := s.door.postFrom("127.0.0.1", here, pass(1, 1, "in", morning)); !slices.Equal(r.Acknowledged, []int64{1}) {
		t.Fatalf("the device: %+v", r)
	}
	stopHere() // writes down where it was heard
	if alarms := s.alarms(); len(alarms) != 0 {
		t.Fatalf("one device alone: %+v", alarms)
	}
	s.now = s.now.Add(20 * time.Second)
	for seq := range 3 {
		if r := s.door.postFrom("127.0.0.2", there, pass(2+seq, 2, "in", morning)); !slices.Equal(r.Acknowledged, []int64{int64(2 + seq)}) {
			t.Errorf("the other device: %+v", r)
		}
	}
	stopThere()
	alarms := s.alarms()
	if len(alarms) != 1 || alarms[0].Kind != reader.TwoAddresses || alarms[0].Device != s.door.id || alarms[0].Times != 1 ||
		alarms[0].Evidence != "127.0.0.1 and 127.0.0.2" || !alarms[0].RaisedAt.Equal(s.now) {
		t.Errorf("alarms %+v", alarms)
	}
	if n := s.count(`SELECT count(*) FROM door.pass`); n != 4 {
		t.Errorf("%d passes are kept, want 4", n)
	}
	if text := log.String(); strings.Count(text, "may be stolen") != 1 ||
		!strings.Contains(text, fmt.Sprintf(`"device":%d,"alarm":"two_addresses"`, s.door.id)) {
		t.Errorf("the log says %s", text)
	}
	devices, err := reader.ListDevices(t.Context(), s.pool)
	if err != nil || len(devices) != 1 || len(devices[0].Alarms) != 1 {
		t.Errorf("key list: %+v, %v", devices, err)
	}
}

// A device that uses the same address for all it asks is one device, whatever it asks.
func TestADeviceAtOneAddressRaisesNoAlarm(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	url, _, stop := s.process()
	for seq := range 5 {
		s.door.postFrom("127.0.0.1", url, pass(seq, 1, "in", morning))
		s.now = s.now.Add(time.Second)
	}
	stop()
	if alarms := s.alarms(); len(alarms) != 0 {
		t.Errorf("alarms %+v", alarms)
	}
}

// Row 55: a clone counts on from where the original stood, so a number comes with
// two contents. It is one alarm until somebody settles it; what came first
// stands, what came second is kept.
func TestForkedNumbersRaiseOneAlarmUntilItIsSettled(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.door.upload(pass(7, 1, "in", morning))
	for range 2 {
		s.door.upload(pass(7, 2, "in", morning), pass(8, 2, "in", morning))
	}
	alarms := s.alarms()
	if len(alarms) != 1 || alarms[0].Kind != reader.ForkedNumbers || alarms[0].Times != 2 || alarms[0].Evidence != "seq 7" {
		t.Fatalf("alarms %+v", alarms)
	}
	if n := s.metric("zvonok_reader_device_alarms_total", "kind", "forked_numbers"); n != 1 {
		t.Errorf("counted %v times", n)
	}
	other, _ := s.school("o-2", "school", 0)
	for _, test := range []struct {
		organisation ledger.OrganisationID
		want         error
	}{{other, reader.ErrNoDeviceAlarm}, {s.organisation, nil}, {s.organisation, reader.ErrNoDeviceAlarm}} {
		err := reader.SettleAlarm(t.Context(), s.pool, test.organisation, alarms[0].ID, access.ByStaff("t-1"), s.now)
		if err != test.want {
			t.Errorf("settled by organisation %d: %v, want %v", test.organisation, err, test.want)
		}
	}
	if alarms := s.alarms(); len(alarms) != 0 {
		t.Errorf("after it was settled: %+v", alarms)
	}
	s.door.upload(pass(8, 1, "in", morning))
	if again := s.alarms(); len(again) != 1 || again[0].ID == alarms[0].ID {
		t.Errorf("the next one: %+v", again)
	}
}
