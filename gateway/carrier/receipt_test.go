package carrier

import (
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/gateway/smpp"
)

var receiptNow = time.Date(2026, 11, 22, 8, 20, 0, 0, time.UTC)

func reader(t *testing.T) receiptReader {
	t.Helper()
	return receiptReader{operator: "mts", ids: newIDs(t, IDAuto), zone: time.UTC, region: "RU"}
}

func receiptPDU(text string, tlvs ...smpp.TLV) *smpp.Message {
	return &smpp.Message{
		Command: smpp.CmdDeliverSM, ESMClass: smpp.ESMClassReceipt,
		Source:       smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
		Destination:  smpp.Address{TON: 5, NPI: 0, Addr: "SCHOOL"},
		ShortMessage: []byte(text), TLVs: tlvs,
	}
}

// The texts are the shapes that vendors are known to send, with invented ids, numbers and words.
func TestEveryShapeOfAReceiptIsRead(t *testing.T) {
	t.Parallel()
	at := func(clock string) time.Time {
		parsed, err := time.Parse(time.DateTime, clock)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	minute, second := at("2026-11-22 08:15:00"), at("2026-11-22 08:15:04")
	tests := []struct {
		name    string
		text    string
		tlvs    []smpp.TLV
		id      string
		state   ReceiptState
		failure string
		done    time.Time
	}{
		{
			"the customary text of appendix B",
			"id:0123456789 sub:001 dlvrd:001 submit date:2611220814 done date:2611220815 stat:DELIVRD err:000 text:Hello",
			nil, "0123456789", StateDelivered, "", minute,
		},
		{
			"dates of 12 digits",
			"id:1 sub:001 dlvrd:001 submit date:261122081459 done date:261122081504 stat:DELIVRD err:000 text:",
			nil, "1", StateDelivered, "", second,
		},
		{
			"dates of 14 digits",
			"id:1 sub:001 dlvrd:001 submit date:20261122081459 done date:20261122081504 stat:DELIVRD err:000",
			nil, "1", StateDelivered, "", second,
		},
		{
			"dates in SMPP's own form with an offset",
			"id:rdwj96 sub:000 dlvrd:000 submit date:261122111500912+ done date:261122111504012+ stat:UNDELIV err:000",
			nil, "rdwj96", StateUndeliverable, "", second,
		},
		{
			"dates as Unix time",
			"id:123A456B sub:1 dlvrd:1 submit date:1795335299 done date:1795335304 stat:DELIVRD err:0 text: hi",
			nil, "123A456B", StateDelivered, "", second,
		},
		{
			"dates in ISO form",
			"id:7 submit date:2026-11-22 08:14:59 done date:2026-11-22 08:15:04 stat:DELIVRD err:000",
			nil, "7", StateDelivered, "", second,
		},
		{
			"no done date yet",
			"id:5 sub:001 dlvrd:001 submit date:2611220814 done date:0000000000 stat:FAILED err:002 Text:",
			nil, "5", StateUndeliverable, "002",
			time.Time{},
		},
		{
			"without sub and dlvrd",
			"id:1526758174 submit date:2611220814 done date:2611220815 stat:DELIVRD err:000 text:hello",
			nil, "1526758174", StateDelivered, "", minute,
		},
		{
			"without text",
			"id:0654354026 submit date:2611220814 done date:2611220815 stat:DELIVRD err:000",
			nil, "0654354026", StateDelivered, "", minute,
		},
		{
			"a NUL at the end",
			"id:0000436949 submit date:2611220814 done date:2611220815 stat:DELIVRD err:000\x00",
			nil, "0000436949", StateDelivered, "", minute,
		},
		{
			"capital letters in the names of fields",
			"Id:1235 Sub:001 Dlvrd:1 Submit Date:2611220814 Done Date:2611220815 Stat:DELIVRD Err:0 Text:aha",
			nil, "1235", StateDelivered, "", minute,
		},
		{
			"small letters in the state",
			"id:1 sub:1 dlvrd:1 submit date:2611220814 done date:2611220815 stat:delivrd err:0",
			nil, "1", StateDelivered, "", minute,
		},
		{
			"names of dates written as one word",
			"id:1 sub:1 dlvrd:1 submitdate:2611220814 donedate:2611220815 stat:DELIVRD err:0",
			nil, "1", StateDelivered, "", minute,
		},
		{
			"names of dates written with underscores",
			"id:1 submit_date:2611220814 done_date:2611220815 status:DELIVERED error_code:0",
			nil, "1", StateDelivered, "", minute,
		},
		{
			"blanks behind the colons",
			"id: 1 sub: 001 dlvrd: 001 submit date: 2611220814 done date: 2611220815 stat: EXPIRED err: 27 text: x",
			nil, "1", StateExpired, "27", minute,
		},
		{
			"a state padded with blanks",
			"id:1 sub:001 dlvrd:001 submit date:2611220814 done date:2611220815 stat:ACKED   err:000",
			nil, "1", StateAcked, "", minute,
		},
		{
			"a state without its name",
			"id:ce5bc5a9-4f7d-4282 sub:000 dlvrd:000 submit date:261122081459 done date:261122081504 DELIVRD err:000 Text:",
			nil, "ce5bc5a9-4f7d-4282", StateDelivered, "", second,
		},
		{
			"equals signs and commas",
			"id=42, stat=UNDELIVERABLE, err=0x000B, done date=2611220815",
			nil, "42", StateUndeliverable, "0X000B", minute,
		},
		{
			"fields in another order",
			"stat:REJECTD id:77 err:069 done date:2611220815",
			nil, "77", StateRejected, "069", minute,
		},
		{
			"a state as a number",
			"id:9 stat:2 err:0", nil, "9", StateDelivered, "",
			time.Time{},
		},
		{
			"line breaks between the fields",
			"id:12469 sub:001 dlvrd:001\nsubmit date:2611220814 done date:2611220815\nstat:DELIVRD err:0\ntext:Example",
			nil, "12469", StateDelivered, "", minute,
		},
		{
			"the words of the message hold fields, too",
			"id:1 stat:UNDELIV err:11 text:id:2 stat:DELIVRD err:000",
			nil, "1", StateUndeliverable, "11",
			time.Time{},
		},
		{
			"UCS-2",
			"\x00i\x00d\x00:\x003\x00 \x00s\x00t\x00a\x00t\x00:\x00D\x00E\x00L\x00I\x00V\x00R\x00D",
			nil, "3", StateDelivered, "",
			time.Time{},
		},
		{
			"the text's own words in another coding",
			"id:0489708364 sub:001 dlvrd:001 submit date:2611220814 done date:2611220815 stat:DELIVRD err:000 text:\x04\x1f\x04@\x048",
			nil, "0489708364", StateDelivered, "", minute,
		},
		{
			"parameters alone",
			"",
			[]smpp.TLV{smpp.Text(smpp.TagReceiptedMessageID, "6aad5"), smpp.Uint8(smpp.TagMessageState, 2)},
			"6aad5", StateDelivered, "",
			time.Time{},
		},
		{
			"a text without id, the id as parameter",
			"sub:001 dlvrd:000 stat:UNDELIV err:012 text:",
			[]smpp.TLV{smpp.Text(smpp.TagReceiptedMessageID, "6aad5")},
			"6aad5", StateUndeliverable, "012",
			time.Time{},
		},
		{
			"a parameter without its NUL",
			"",
			[]smpp.TLV{{Tag: smpp.TagReceiptedMessageID, Value: []byte("1d305b4c")}, smpp.Uint8(smpp.TagMessageState, 5)},
			"1d305b4c", StateUndeliverable, "",
			time.Time{},
		},
		{
			"a text in message_payload",
			"",
			[]smpp.TLV{{Tag: smpp.TagMessagePayload, Value: []byte("id:8 stat:DELETED err:000")}},
			"8", StateDeleted, "",
			time.Time{},
		},
		{
			"a network error as parameter",
			"id:8 stat:UNDELIV err:000",
			[]smpp.TLV{{Tag: smpp.TagNetworkErrorCode, Value: []byte{3, 0, 27}}},
			"8", StateUndeliverable, "3/27",
			time.Time{},
		},
		{
			"a network error of zero is none",
			"id:8 stat:DELIVRD err:000",
			[]smpp.TLV{{Tag: smpp.TagNetworkErrorCode, Value: []byte{3, 0, 0}}},
			"8", StateDelivered, "",
			time.Time{},
		},
		{
			"message_state unknown beside a text that knows",
			"id:8 stat:DELIVRD err:000",
			[]smpp.TLV{smpp.Uint8(smpp.TagMessageState, 7)},
			"8", StateDelivered, "",
			time.Time{},
		},
		{
			"message_state against the text: the parameter counts",
			"id:8 stat:ACCEPTD err:000",
			[]smpp.TLV{smpp.Uint8(smpp.TagMessageState, 5)},
			"8", StateUndeliverable, "",
			time.Time{},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, ok := reader(t).read(receiptPDU(test.text, test.tlvs...), receiptNow)
			if !ok {
				t.Fatal("not understood")
			}
			if r.MessageID != test.id || r.State != test.state || r.NetworkError != test.failure {
				t.Errorf("got id %q, state %s, network error %q", r.MessageID, r.State, r.NetworkError)
			}
			if !r.DoneAt.Equal(test.done) {
				t.Errorf("done at %s, want %s", r.DoneAt, test.done)
			}
			if r.To != "79000000001" || r.From != "" || r.Operator != "mts" || !r.ReceivedAt.Equal(receiptNow) {
				t.Errorf("got to %q, from %q, operator %q, received at %s", string(r.To), string(r.From), r.Operator, r.ReceivedAt)
			}
			if strings.Contains(strings.ToLower(r.Raw), "text:") {
				t.Errorf("the message's own words are kept: %q", r.Raw)
			}
		})
	}
}

func TestEverySpellingOfAState(t *testing.T) {
	t.Parallel()
	for state, words := range map[ReceiptState][]string{
		StateDelivered:     {"DELIVRD", "DELIVERED", "Delivered", "DELIVERD", "DLVRD"},
		StateExpired:       {"EXPIRED", "EXPIRD", "expired"},
		StateDeleted:       {"DELETED", "CANCELLED"},
		StateUndeliverable: {"UNDELIV", "UNDELIVERABLE", "UNDELIVERED", "UNDELIVRD", "FAILED", "NOT_DELIVERED"},
		StateRejected:      {"REJECTD", "REJECTED", "SKIPPED", "BLACKLISTED"},
		StateAccepted:      {"ACCEPTD", "ACCEPTED", "SENT"},
		StateAcked:         {"ACKED"},
		StateBuffered:      {"BUFFRED", "BUFFERED", "QUEUED"},
		StateEnroute:       {"ENROUTE", "EN_ROUTE", "En-Route", "PENDING"},
		StateScheduled:     {"SCHEDULED"},
		StateUnknown:       {"UNKNOWN", "UNKNOWN."},
	} {
		for _, word := range words {
			r, ok := reader(t).read(receiptPDU("id:1 stat:"+word+" err:000"), receiptNow)
			if !ok || r.State != state {
				t.Errorf("%s: got %q, %t", word, r.State, ok)
			}
		}
	}
}

func TestWhatNamesNoMessageOrNoStateIsNoReceipt(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "Hello", "stat:DELIVRD err:000", "id:1", "id: stat:DELIVRD", "id:1 stat:PURPLE", "id:1 stat:99",
		"text:id:1 stat:DELIVRD",
	} {
		if r, ok := reader(t).read(receiptPDU(text), receiptNow); ok {
			t.Errorf("%q is taken for a receipt: %+v", text, r)
		}
	}
}

// Fault row 21.
func TestOnlyTheClassOfAMessageMakesItAReceipt(t *testing.T) {
	t.Parallel()
	for class := range 256 {
		want := class&0x3C == 0x04
		if got := isReceipt(byte(class)); got != want {
			t.Errorf("esm_class 0x%02X: got %t", class, got)
		}
	}
}

func TestAnIDInTextAndParameterOffersTheKeysOfBoth(t *testing.T) {
	t.Parallel()
	pdu := receiptPDU("id:0489708364 stat:DELIVRD err:000", smpp.Text(smpp.TagReceiptedMessageID, "1d305b4c"))
	r, _ := reader(t).read(pdu, receiptNow)
	for _, submitted := range []string{"1d305b4c", "489708364"} {
		if !slices.Contains(r.Keys, CanonicalID(submitted)) {
			t.Errorf("%s is not among %q", submitted, r.Keys)
		}
	}
}

func TestDatesAreInTheOperatorsZone(t *testing.T) {
	t.Parallel()
	moscow := time.FixedZone("MSK", 3*3600)
	got := receiptTime("2611220815", moscow, receiptNow)
	if want := time.Date(2026, 11, 22, 5, 15, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("got %s", got)
	}
}

func TestTenDigitsAreADateWheneverTheyCanBe(t *testing.T) {
	t.Parallel()
	// Unix time 1795335304 reads as 17-95-33: no date. 1702281424 reads as 2017-02-28 14:24, which is years away from a
	// receipt that came at that Unix time.
	received := time.Unix(1702281430, 0)
	if got := receiptTime("1702281424", time.UTC, received); !got.Equal(time.Unix(1702281424, 0)) {
		t.Errorf("Unix time was read as %s", got)
	}
	if got := receiptTime("2611220815", time.UTC, receiptNow); got.Year() != 2026 {
		t.Errorf("a date was read as %s", got)
	}
}

func TestWhatAFinalFailureMeans(t *testing.T) {
	t.Parallel()
	r := reader(t)
	r.errors = map[string]Class{"069": PermanentRoute, "3/27": Temporary, "11": PermanentRecipient}
	for _, test := range []struct {
		name, text string
		tlvs       []smpp.TLV
		want       Class
	}{
		{"delivered", "id:1 stat:DELIVRD err:000", nil, OK},
		{"expired is stale", "id:1 stat:EXPIRED err:000", nil, Stale},
		{"undeliverable blames the phone", "id:1 stat:UNDELIV err:000", nil, PermanentRecipient},
		{"rejected blames the route", "id:1 stat:REJECTD err:000", nil, PermanentRoute},
		{"deleted blames the route", "id:1 stat:DELETED err:000", nil, PermanentRoute},
		{"the operator's err says route", "id:1 stat:UNDELIV err:069", nil, PermanentRoute},
		{"the operator's err without its zeros", "id:1 stat:REJECTD err:011", nil, PermanentRecipient},
		{
			"the operator's network error says absent", "id:1 stat:UNDELIV err:000",
			[]smpp.TLV{{Tag: smpp.TagNetworkErrorCode, Value: []byte{3, 0, 27}}},
			Temporary,
		},
		{"on the way is not known", "id:1 stat:ENROUTE err:000", nil, Unknown},
	} {
		got, ok := r.read(receiptPDU(test.text, test.tlvs...), receiptNow)
		if !ok || got.Class != test.want {
			t.Errorf("%s: got %s", test.name, got.Class)
		}
	}
}

// Fault row 19: a final state never goes back.
func TestAFinalStateIsNeverOverwritten(t *testing.T) {
	t.Parallel()
	for _, old := range receiptStates() {
		for _, state := range receiptStates() {
			supersedes := state.Supersedes(old)
			switch {
			case old.Final() && supersedes:
				t.Errorf("%s overwrites the final %s", state, old)
			case !old.Final() && state.Final() && !supersedes:
				t.Errorf("the final %s does not overwrite %s", state, old)
			case state == StateUnknown && old != "" && supersedes:
				t.Errorf("UNKNOWN overwrites %s", old)
			}
		}
	}
	if !StateUnknown.Supersedes("") || !StateDelivered.Supersedes(StateUnknown) || StateEnroute.Supersedes(StateAccepted) {
		t.Error("the order of states on the way is wrong")
	}
}

func FuzzReceiptText(f *testing.F) {
	for _, seed := range []string{
		"id:1 sub:001 dlvrd:001 submit date:2611220814 done date:2611220815 stat:DELIVRD err:000 text:x",
		"id=1,stat=2", "ID:::::", "done date: DELIVRD", "text:", "submit date:id:stat:err:", "id:\x00 stat:\xff", "_:-:",
		"message id:1 error code:2", "\x00i\x00d\x00:",
	} {
		f.Add([]byte(seed), []byte("1\x00"), byte(2))
	}
	f.Fuzz(func(t *testing.T, text, id []byte, state byte) {
		pdu := receiptPDU(string(text), smpp.TLV{Tag: smpp.TagReceiptedMessageID, Value: id},
			smpp.Uint8(smpp.TagMessageState, state))
		r, ok := receiptReader{ids: newIDs(t, IDAuto), zone: time.UTC, region: "RU"}.read(pdu, receiptNow)
		if !ok {
			return
		}
		if r.MessageID == "" || len(r.Keys) == 0 || len(r.Keys) > 6 || !slices.Contains(receiptStates(), r.State) {
			t.Fatalf("receipt without substance: %+v", r)
		}
		for _, key := range r.Keys {
			if key == "" || len(key) > 2*maxMessageID {
				t.Fatalf("key %q", key)
			}
		}
	})
}
