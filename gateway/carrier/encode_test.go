package carrier

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"zvonok/gateway/smpp"
	"zvonok/templates/gsm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// made returns a message cut under a method, as the operator would write it.
func made(t interface {
	Helper()
	Fatal(...any)
}, text string, method Method,
) *message {
	t.Helper()
	m := &message{sms: SMS{ID: 7, To: "79000000001", Text: text}, form: form{method: method}, reference: 0x1234}
	if err := m.cut(); err != nil {
		t.Fatal(err)
	}
	return m
}

func schoolCoder() encoder {
	source, _ := sourceAddress("SCHOOL")
	return encoder{command: smpp.CmdSubmitSM, source: source}
}

// joined reads the parts back as a phone does.
func joined(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, m *message,
) string {
	t.Helper()
	var octets []byte
	var coding byte
	for i := range m.segments {
		p := schoolCoder().pdu(m, i, paceStart)
		frame, err := smpp.Append(nil, 1, 0, p)
		if err != nil {
			t.Fatal(err)
		}
		_, back, err := smpp.Decode(frame)
		if err != nil {
			t.Fatal(err)
		}
		place, part := concatOf(back.(*smpp.Message))
		if len(m.segments) > 1 && (int(place.number) != i+1 || int(place.count) != len(m.segments)) {
			t.Fatalf("part %d says it is %d of %d", i+1, place.number, place.count)
		}
		octets = append(octets, part...)
		coding = p.DataCoding
	}
	decode := gsm.DecodeGSM7
	if coding == codingUCS2 {
		decode = gsm.DecodeUCS2
	}
	text, err := decode(octets)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Fault row 50, pain 21: join(split(x)) = x, and every part fits its octets on the air.
func TestWhatIsCutIsJoinedAgainByEveryMethod(t *testing.T) {
	t.Parallel()
	characters := []rune("abc ÄÖ€[]{}~^|\\Ωа бвЖю—😀👨‍👩‍👧é🇷🇺й")
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOfN(rapid.SampledFrom(characters), 0, 500).Draw(t, "text"))
		method := rapid.SampledFrom([]Method{UDH8, UDH16, SAR, Payload}).Draw(t, "method")
		m := made(t, text, method)
		if got := joined(t, m); got != text {
			t.Fatalf("%s: joined is %q", method, got)
		}
		for i, s := range m.segments {
			p := schoolCoder().pdu(m, i, paceStart)
			header := len(p.ShortMessage) - len(s.Octets)
			limit := 140 - header
			if s.Alphabet == gsm.GSM7 {
				limit = (140*8 - (header*8+6)/7*7) / 7
			}
			if method == SAR && len(m.segments) > 1 { // the operator adds the header
				limit = map[gsm.Alphabet]int{gsm.GSM7: 152, gsm.UCS2: 132}[s.Alphabet]
			}
			if method != Payload && len(s.Octets) > limit {
				t.Fatalf("%s: part %d has %d octets, %d fit", method, i+1, len(s.Octets), limit)
			}
		}
	})
}

func TestATextIsGSM7WhenItFitsAndUCS2Otherwise(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		text   string
		coding byte
		parts  int
	}{
		{"160 characters of GSM-7 are one part", strings.Repeat("a", 160), 0, 1},
		{"161 are two", strings.Repeat("a", 161), 0, 2},
		{"the extension table counts twice", strings.Repeat("€", 80), 0, 1},
		{"81 euros are two parts", strings.Repeat("€", 81), 0, 2},
		{"306 characters are three parts with a 16-bit reference", strings.Repeat("a", 306), 0, 3},
		{"70 letters of Cyrillic are one part", strings.Repeat("я", 70), 8, 1},
		{"71 are two", strings.Repeat("я", 71), 8, 2},
		{"emoji count two", strings.Repeat("😀", 35), 8, 1},
		{"nothing is a part, too", "", 0, 1},
	} {
		m := made(t, test.text, UDH16)
		p := schoolCoder().pdu(m, 0, paceStart)
		if p.DataCoding != test.coding || len(m.segments) != test.parts {
			t.Errorf("%s: got coding %d and %d parts", test.name, p.DataCoding, len(m.segments))
		}
	}
	if got := len(made(t, strings.Repeat("a", 306), UDH8).segments); got != 2 {
		t.Errorf("306 characters with an 8-bit reference are %d parts", got)
	}
}

// Pain 6: message_payload costs what the operator will cut it into.
func TestThePayloadCostsItsParts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"": 1, strings.Repeat("a", 160): 1, strings.Repeat("a", 161): 2, strings.Repeat("a", 307): 3,
		strings.Repeat("я", 70): 1, strings.Repeat("я", 71): 2, strings.Repeat("я", 135): 3,
	} {
		if _, cost := made(t, text, Payload).pending(); cost != want {
			t.Errorf("%d octets cost %d, want %d", len(text), cost, want)
		}
	}
}

func TestATextOfMoreThan255PartsIsRefused(t *testing.T) {
	t.Parallel()
	for _, method := range []Method{UDH8, UDH16, SAR, Payload} {
		m := &message{sms: SMS{Text: strings.Repeat("a", 40_000)}, form: form{method: method}}
		if m.cut() == nil {
			t.Errorf("%s takes it", method)
		}
	}
}

func TestTheSendersKindMakesItsTypeOfNumber(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]smpp.Address{
		"SCHOOL":       {TON: 5, NPI: 0, Addr: "SCHOOL"},
		"377":          {TON: 3, NPI: 0, Addr: "377"},
		"12345678":     {TON: 3, NPI: 0, Addr: "12345678"},
		"79000000001":  {TON: 1, NPI: 1, Addr: "79000000001"},
		"+79000000001": {TON: 1, NPI: 1, Addr: "79000000001"},
		"":             {},
	} {
		if got, err := sourceAddress(source); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", source, got, err)
		}
	}
	for _, source := range []string{"TOO LONG A NAME", "ШКОЛА", "1234567890123456"} {
		if _, err := sourceAddress(source); err == nil {
			t.Errorf("%q is accepted", source)
		}
	}
}

func TestTheValidityIsTheLifeThatIsLeft(t *testing.T) {
	t.Parallel()
	m := made(t, "x", UDH16)
	m.sms.Deadline = paceStart.Add(15*time.Minute + 200*time.Millisecond)
	if got := schoolCoder().pdu(m, 0, paceStart).ValidityPeriod; got != "000000001501000R" {
		t.Errorf("got %q", got)
	}
	if got := schoolCoder().pdu(m, 0, paceStart.Add(10*time.Minute)).ValidityPeriod; got != "000000000501000R" {
		t.Errorf("ten minutes later: %q", got)
	}
	m.sms.Deadline = time.Time{}
	if got := schoolCoder().pdu(m, 0, paceStart).ValidityPeriod; got != "" {
		t.Errorf("without a deadline: %q", got)
	}
	m.sms.Deadline = paceStart.Add(time.Hour)
	delivered := encoder{command: smpp.CmdDeliverSM}
	if got := delivered.pdu(m, 0, paceStart).ValidityPeriod; got != "" {
		t.Errorf("a deliver_sm has a validity: %q", got)
	}
}

func TestEachPhoneHasItsOwnReferences(t *testing.T) {
	t.Parallel()
	r := newReferences(42)
	a, b := r.take("79000000001"), r.take("79000000002")
	if next := r.take("79000000001"); next != a+1 {
		t.Errorf("the second text has %d after %d", next, a)
	}
	if next := r.take("79000000002"); next != b+1 {
		t.Errorf("the other phone has %d after %d", next, b)
	}
	for i := range maxReferences + 10 {
		r.take(number(i))
	}
	if len(r.next) > maxReferences {
		t.Errorf("%d counters are kept", len(r.next))
	}
}

// Pain 8: a repetition has the same user_message_reference; pain 4: the parts of a message have different ones.
func TestTheUserReferenceIsTheSameForEveryAttemptOfAPart(t *testing.T) {
	t.Parallel()
	first, again, part, other := userReference(7, 0), userReference(7, 0), userReference(7, 1), userReference(8, 0)
	if first != again || first == part || first == other {
		t.Errorf("references are not by part: %d, %d, %d, %d", first, again, part, other)
	}
}

// Pain 21: golden PDUs for each method. Regenerate with -update and read the difference.
func TestGoldenPDUs(t *testing.T) {
	t.Parallel()
	texts := []struct{ name, text string }{
		{"latin", "Entry 08:15 Masha P."},
		{"cyrillic", "Вход 08:15 Маша П. Баланс 143,50 р"},
		{"long-latin", strings.Repeat("Balance 143.50 [RUB] ", 9)},
		{"long-cyrillic", strings.Repeat("Баланс 143,50 р 😀 ", 8)},
	}
	var out strings.Builder
	for _, method := range []Method{UDH8, UDH16, SAR, Payload} {
		for _, text := range texts {
			m := made(t, text.text, method)
			m.sms.Deadline = paceStart.Add(15 * time.Minute)
			for i := range m.segments {
				frame, err := smpp.Append(nil, uint32(i+1), 0, schoolCoder().pdu(m, i, paceStart))
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&out, "%s %s %d/%d %s\n", method, text.name, i+1, len(m.segments), hex.EncodeToString(frame))
			}
		}
	}
	golden := filepath.Join("testdata", "submit.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("PDUs differ from %s", golden)
	}
}

// ussd.md 1.2 and 5: every data coding that leaks through gateways.
func TestTextsAreReadInEveryCodingSeen(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		octets string
		coding byte
		want   string
	}{
		{"default", "*377*888#", 0x00, "*377*888#"},
		{"default alphabet is GSM-7", "\x00\x1b\x65", 0x00, "@€"},
		{"raw GSM-7", "1", 0x0F, "1"},
		{"ASCII", "a@b", 0x01, "a@b"},
		{"Latin-1", "caf\xe9", 0x03, "café"},
		{"eight bits", "2", 0x44, "2"},
		{"UCS-2", "\x04\x14\x04\x30", 0x08, "Да"},
		{"raw UCS-2", "\x001", 0x48, "1"},
		{"UCS-2 behind a language", "ru\x04\x14\x04\x30", 0x11, "Да"},
		{"7-bit digits called UCS-2, odd", "1", 0x08, "1"},
		{"7-bit digits called UCS-2, even", "12", 0x48, "12"},
		{"7-bit word called UCS-2", "stop", 0x08, "stop"},
		{"nothing", "", 0x08, ""},
	} {
		if got := decodeText([]byte(test.octets), test.coding); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func FuzzInboundText(f *testing.F) {
	f.Add([]byte("\x05\x00\x03\x01\x02\x01abc"), byte(0x40), byte(8))
	f.Add([]byte("\x06\x08\x04\x01\x02\x02\x01abc"), byte(0x40), byte(0))
	f.Add([]byte("\xff"), byte(0x40), byte(0x11))
	f.Fuzz(func(t *testing.T, octets []byte, esmClass, coding byte) {
		m := &smpp.Message{Command: smpp.CmdDeliverSM, ESMClass: esmClass, ShortMessage: octets}
		place, rest := concatOf(m)
		if place.count != 0 && (place.number == 0 || place.number > place.count) {
			t.Fatalf("place %+v", place)
		}
		if len(rest) > len(octets) {
			t.Fatal("the text grew")
		}
		_ = decodeText(rest, coding)
	})
}
