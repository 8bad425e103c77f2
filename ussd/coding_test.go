package ussd

import (
	"testing"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/templates"
)

// ussd.md 1.2 and 5: raw data coding schemes leak through gateways, and phones answer UCS-2 menus in 7-bit. All of it
// is the key 1, from short_message or message_payload, by either command.
func TestAKeyIsAKeyInEveryCoding(t *testing.T) {
	t.Parallel()
	smsc, address := listen(t, smpptest.OperatorConfig{})
	operator := account
	operator.Mode, operator.Address = carrier.Client, address
	s := serve(t, "plain-its", operator, balance)
	<-s.bound
	caller := &handset{t: t, operator: smsc.Operator, profile: gateways(t)["plain-its"], number: "79000000001"}
	for _, test := range []struct {
		what    string
		coding  byte
		octets  string
		payload bool
	}{
		{"SMSC default", 0x00, "1", false},
		{"ASCII", 0x01, "1", false},
		{"Latin-1", 0x03, "1#", false},
		{"GSM-7, language unspecified", 0x0F, "1", false},
		{"German, as a radio coding scheme", 0x02, "1", false},
		{"eight-bit", 0x44, "1", false},
		{"UCS-2", 0x08, "\x001", false},
		{"UCS-2, as a radio coding scheme", 0x48, "\x001", false},
		{"UCS-2 behind its language", 0x11, "\x65\x3a\x001", false},
		{"UCS-2 that is GSM-7 in truth", 0x08, "1", false},
		{"UCS-2 that is GSM-7 in truth, of even length", 0x48, "1#", false},
		{"full-width in UCS-2", 0x08, "\xff\x11", false},
		{"padded with CR", 0x00, "1\r", false},
		{"padded with NUL, which GSM-7 reads as @", 0x00, "1\x00\x00", false},
		{"in message_payload", 0x00, "1", true},
		{"UCS-2 in message_payload", 0x08, "\x001", true},
	} {
		screen := caller.dial("*377*888#")
		m := &smpp.Message{
			Command: smpp.CmdDeliverSM, ServiceType: "USSD", Source: smpp.Address{TON: 1, NPI: 1, Addr: caller.number},
			Destination: screen.Message.Source, DataCoding: test.coding, ShortMessage: []byte(test.octets),
			TLVs: smpp.USSD(opUSSRConfirm, screen.Message.TLVs[1:]...),
		}
		if test.payload {
			m.TLVs = append(m.TLVs, smpp.TLV{Tag: smpp.TagMessagePayload, Value: m.ShortMessage})
			m.ShortMessage = nil
		}
		if status, err := smsc.Send(caller.context(), m); err != nil || status != smpp.StatusOK {
			t.Fatalf("%s: %v, %v", test.what, status, err)
		}
		if got := caller.screen(); got.Text != balanceRU || !got.End {
			t.Errorf("%s: shown %q", test.what, got.Text)
		}
		s.forgive()
	}
}

// forgive lets phones dial again that have dialled too often.
func (s *service) forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bursts = newBursts(s.config.Now())
}

// ussd.md 6: what the operator says of the phone's language is used until the person has chosen one.
func TestTheOperatorsHintOfALanguage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		tlv  smpp.TLV
		want templates.Language
	}{
		{smpp.Uint8(smpp.TagLanguageIndicator, 1), templates.EN},
		{smpp.Uint8(smpp.TagLanguageIndicator, 0), ""},
		{smpp.Uint8(smpp.TagLanguageIndicator, 4), ""},
		{smpp.Text(tagEyelineLocale, "ru_RU"), templates.RU},
		{smpp.Text(tagEyelineLocale, "EN"), templates.EN},
		{smpp.Text(tagEyelineLocale, "kk"), ""},
		{smpp.TLV{Tag: smpp.TagLanguageIndicator}, ""},
	} {
		if got := hintOf(smpp.TLVs{test.tlv}); got != test.want {
			t.Errorf("%v is %q", test.tlv, got)
		}
	}
	for number, want := range map[phone.Number]templates.Language{
		"79000000001": templates.RU, "447900000001": templates.EN, "": templates.EN,
	} {
		if got := Guess(number, "", false); got.Language != want {
			t.Errorf("%q is guessed to read %s", number, got.Language)
		}
	}
	if got := Guess("79000000001", templates.EN, true); got.Language != templates.EN || !got.Latin {
		t.Errorf("the hint is not believed: %+v", got)
	}
}
