package ussd

import (
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

// A new gateway is a few lines of settings.
func TestProfilesAreExtendedInTheSettings(t *testing.T) {
	t.Parallel()
	var file struct {
		Profile []ProfileSetting `toml:"profile"`
	}
	err := toml.Unmarshal([]byte(`
[[profile]]
name = "beeline-2026"
base = "smpp+"
begin_ops = [1, 40]
end_op = 32
session = ["user_message_reference"]
its = "wide"
data_coding_cyrillic = 72
service_type = "USSD_"
esm_class = 2
max_cyrillic = 80
command = "data_sm"
flood_closes = true
late_ack = false
cancelled = [0x455, 0x45F]

[[profile]]
name = "beeline-test"
base = "beeline-2026"
end_op = 17
`), &file)
	if err != nil {
		t.Fatal(err)
	}
	profiles, err := NewProfiles(file.Profile)
	if err != nil {
		t.Fatal(err)
	}
	p, err := profiles.Get("beeline-2026")
	if err != nil {
		t.Fatal(err)
	}
	base := profiles["smpp+"]
	if !slices.Equal(p.Begin, []byte{1, 40}) || p.End != 32 || p.ITS != ITSWide || p.UCS2 != 72 || p.Service != "USSD_" ||
		!slices.Equal(p.Session, []smpp.Tag{smpp.TagUserMessageReference}) || p.Limits.UCS2 != 80 || p.ESMClass != 2 ||
		p.Cancelled != [2]smpp.Status{0x455, 0x45F} || p.Command != smpp.CmdDataSM || !p.FloodCloses || p.LateAck {
		t.Errorf("read as %+v", p)
	}
	if !slices.Equal(p.Input, base.Input) || p.Continue != base.Continue || p.Limits.GSM7 != 160 ||
		p.AbortText != base.AbortText {
		t.Errorf("what the setting leaves out is not the base's: %+v", p)
	}
	if next := profiles["beeline-test"]; next.End != 17 || next.UCS2 != 72 {
		t.Errorf("a setting built on another: %+v", next)
	}
}

func TestAWrongProfileSettingNamesItsKey(t *testing.T) {
	t.Parallel()
	number := func(n int) *int { return &n }
	long := "USSD123"
	for want, setting := range map[string]ProfileSetting{
		"no name":          {},
		"taken":            {Name: "mica"},
		"unknown profile":  {Name: "x", Base: "nokia"},
		"begin_ops":        {Name: "x", BeginOps: []int{256}},
		"end_op":           {Name: "x", EndOp: number(-1)},
		"max_cyrillic":     {Name: "x", MaxUCS2: number(81)},
		"max_latin":        {Name: "x", MaxGSM7: number(10)},
		"its_session_info": {Name: "x", Session: []string{"imsi"}},
		"its":              {Name: "x", ITS: "inverted"},
		"service_type":     {Name: "x", Service: &long},
		"command":          {Name: "x", Command: "replace_sm"},
		"cancelled":        {Name: "x", Cancelled: []int{0x459, 0x455}},
	} {
		if _, err := NewProfiles([]ProfileSetting{setting}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: the error is %v, it should say %q", setting, err, want)
		}
	}
}

// ussd.md 1.5: what comes in, as each kind of gateway says it.
func TestEveryProfileKnowsTheOperationsOfItsGateway(t *testing.T) {
	t.Parallel()
	profiles, err := NewProfiles(nil)
	if err != nil {
		t.Fatal(err)
	}
	everywhere := map[byte]kind{
		0: begin, 1: begin, 18: input, 19: confirm,
		129: abort, 33: abort, 65: abort, 66: abort, 67: abort,
	}
	besides := map[string]map[byte]kind{"sixdee": {23: abort}, "smpp+": {146: input}}
	for name, p := range profiles {
		for op := range 256 {
			want, known := everywhere[byte(op)]
			if of, ok := besides[name][byte(op)]; ok {
				want, known = of, true
			}
			got, clear := p.kindOf(carrier.Dial{HasOp: true, Op: byte(op)})
			if clear != known || known && got != want {
				t.Errorf("%s takes the operation %d for %v, clear %v; want %v, %v", name, op, got, clear, want, known)
			}
		}
		ended := smpp.TLVs{{Tag: smpp.TagITSSessionInfo, Value: []byte{7, 1}}}
		got, _ := p.kindOf(carrier.Dial{HasOp: true, Op: opUSSRConfirm, TLVs: ended})
		if hangsUp := name != "kz-found"; (got == abort) != hangsUp {
			t.Errorf("%s takes an input with the end bit for %v", name, got)
		}
	}
}

// ussd.md 1.3: which parameter names the dialogue, and what of it counts.
func TestTheSessionIsNamedAsTheProfileSays(t *testing.T) {
	t.Parallel()
	its := func(a, b byte) smpp.TLV { return smpp.TLV{Tag: smpp.TagITSSessionInfo, Value: []byte{a, b}} }
	profiles, err := NewProfiles(nil)
	if err != nil {
		t.Fatal(err)
	}
	id := func(profile string, tlvs ...smpp.TLV) string {
		p := profiles[profile]
		return p.sessionID(tlvs)
	}
	tests := []struct {
		what string
		same bool
		a, b string
	}{
		{"octet 2 counts units", true, id("plain-its", its(7, 0)), id("plain-its", its(7, 4))},
		{"octet 1 is the session", false, id("plain-its", its(7, 0)), id("plain-its", its(8, 0))},
		{"15 bits are the session", false, id("sixdee", its(7, 0)), id("sixdee", its(7, 4))},
		{"the end bit is not", true, id("sixdee", its(7, 4)), id("sixdee", its(7, 5))},
		{
			"0x1501 comes before 0x0204 and 0x1383", true,
			id("smpp+", its(1, 0), smpp.Uint16(smpp.TagUserMessageReference, 5), smpp.Uint32(smpp.TagUSSDSessionID, 9)),
			id("smpp+", smpp.Uint32(smpp.TagUSSDSessionID, 9)),
		},
		{
			"mica knows 0x0204 only", true,
			id("mica", its(1, 0), smpp.Uint16(smpp.TagUserMessageReference, 5)),
			id("mica", its(2, 0), smpp.Uint16(smpp.TagUserMessageReference, 5)),
		},
		{
			"values of different parameters are different", false,
			id("plain-its", its(0, 5)), id("plain-its", smpp.Uint16(smpp.TagUserMessageReference, 5)),
		},
		{"a wrong length names nothing", true, id("plain-its", smpp.Uint8(smpp.TagITSSessionInfo, 7)), ""},
		{"an empty one neither", true, id("plain-its", smpp.TLV{Tag: smpp.TagUSSDSessionID}), ""},
		{"zeros neither", true, id("kz-found", its(0, 0)), ""},
		{"nothing is the phone alone", true, id("huawei"), ""},
	}
	for _, test := range tests {
		if (test.a == test.b) != test.same {
			t.Errorf("%s: %q and %q", test.what, test.a, test.b)
		}
	}
}

// ussd.md 1.3: every session parameter is echoed, its value unchanged but for the end bit.
func TestSessionParametersAreEchoed(t *testing.T) {
	t.Parallel()
	in := smpp.TLVs{
		smpp.Text(smpp.TagCallbackNum, "250010000000000"),
		{Tag: smpp.TagITSSessionInfo, Value: []byte{0x2b, 0x03}},
		smpp.Uint8(smpp.TagUSSDServiceOp, 1), smpp.Uint32(smpp.TagUSSDSessionID, 9), smpp.Uint16(smpp.TagUserMessageReference, 5),
	}
	p := usual()
	for end, octet := range map[bool]byte{false: 0x02, true: 0x03} {
		out := p.echo(in, end)
		if len(out) != 3 || out[0].Value[0] != 0x2b || out[0].Value[1] != octet ||
			!slices.Equal(out[1].Value, in[3].Value) || !slices.Equal(out[2].Value, in[4].Value) {
			t.Errorf("end %v: echoed %v", end, out)
		}
	}
	if in[1].Value[1] != 0x03 {
		t.Error("the message itself was changed")
	}
	p.ITS = ITSUnits
	if out := p.echo(in, true); out[0].Value[1] != 0x05 {
		t.Errorf("the next unit is %#x", out[0].Value[1])
	}
}

func TestMetricsAreWellNamedAndBeginAtZero(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	if _, err := New(Config{
		Codes: []string{"*377*888#"}, Links: []Link{{Name: "mts", Profile: usual()}}, Metrics: NewMetrics(registry),
	}); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(registry, "zvonok_ussd_dialogues_ended_total"); err != nil || n != len(endings()) {
		t.Errorf("%d series of endings, %v", n, err)
	}
}
