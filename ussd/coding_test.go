package ussd

import (
	"fmt"
	"strings"
	"testing"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/templates"
	"zvonok/templates/gsm"
)

// ussd.md 1.2 and 5: raw data coding schemes leak through gateways, and phones answer UCS-2 menus in 7-bit. Whatever the
// coding, the command, the field of the text and who has bound: what was dialled and what was pressed is understood.
func TestEveryCodingIsUnderstoodByEveryCommandFromEitherField(t *testing.T) {
	t.Parallel()
	type way struct {
		command smpp.CommandID
		payload bool
	}
	clientWays := []way{{smpp.CmdDeliverSM, false}, {smpp.CmdDeliverSM, true}, {smpp.CmdDataSM, true}}
	serverWays := []way{{smpp.CmdSubmitSM, false}, {smpp.CmdSubmitSM, true}, {smpp.CmdDataSM, true}}
	understood := func(t *testing.T, s *service, operator *smpptest.Operator, w way) {
		caller := &handset{t: t, operator: operator, profile: gateways(t)["plain-its"], number: "79000000001"}
		if w.command == smpp.CmdDataSM {
			caller.profile = gateways(t)["data-sm"]
		}
		send := func(op, coding byte, octets string) smpptest.Screen {
			screen := caller.dial("*377*888#")
			m := &smpp.Message{
				Command: w.command, ServiceType: "USSD", Source: smpp.Address{TON: 1, NPI: 1, Addr: caller.number},
				Destination: screen.Message.Source, DataCoding: coding, ShortMessage: []byte(octets),
				TLVs: smpp.USSD(op, screen.Message.TLVs[1:2]...),
			}
			if w.payload {
				m.TLVs = append(m.TLVs, smpp.TLV{Tag: smpp.TagMessagePayload, Value: m.ShortMessage})
				m.ShortMessage = nil
			}
			if status, err := operator.Send(caller.context(), m); err != nil || status != smpp.StatusOK {
				t.Fatalf("op %d in %#x: %v, %v", op, coding, status, err)
			}
			s.forgive()
			return caller.screen()
		}
		for _, test := range []struct {
			what   string
			coding byte
			octets func(text string) string
		}{
			{"SMSC default", 0x00, gsm7},
			{"ASCII", 0x01, gsm7},
			{"German, as a radio coding scheme", 0x02, gsm7},
			{"Latin-1", 0x03, gsm7},
			{"GSM-7, language unspecified", 0x0F, gsm7},
			{"Russian in GSM-7, as a radio coding scheme", 0x23, gsm7},
			{"eight-bit", 0x44, gsm7},
			{"UCS-2", 0x08, ucs2},
			{"UCS-2, as a radio coding scheme", 0x48, ucs2},
			{"UCS-2 behind its language", 0x11, func(text string) string { return "\x65\x3a" + ucs2(text) }},
			{"UCS-2 that is GSM-7 in truth", 0x08, gsm7},
			{"UCS-2 that is GSM-7 in truth, as a radio coding scheme", 0x48, gsm7},
			{"UCS-2 behind its language that is GSM-7 in truth", 0x11, gsm7},
			{"full-width in UCS-2", 0x08, func(text string) string {
				return ucs2(strings.Map(func(r rune) rune { return r + '\uFF01' - '!' }, text))
			}},
			{"padded with CR", 0x00, func(text string) string { return text + "\r" }},
			{"padded with NUL, which GSM-7 reads as @", 0x00, func(text string) string { return text + "\x00\x00" }},
		} {
			for what, got := range map[string]smpptest.Screen{
				"a dial":              send(opPSSR, test.coding, test.octets("*377*888*1#")),
				"a dial without hash": send(opPSSR, test.coding, test.octets("*377*888*1")), // of even length
				"a key":               send(opUSSRConfirm, test.coding, test.octets("1")),
				"a key and a hash":    send(opUSSRConfirm, test.coding, test.octets("1#")),
				"a dial as an answer": send(opUSSRConfirm, test.coding, test.octets("*377*888*1#")),
				"a key between signs": send(opUSSRConfirm, test.coding, test.octets("*1#")),
			} {
				if got.Text != balanceRU || !got.End {
					t.Errorf("%s in %s: shown %q", what, test.what, got.Text)
				}
			}
		}
	}
	for _, w := range clientWays {
		t.Run(fmt.Sprintf("%s, in message_payload %v, we bind", w.command, w.payload), func(t *testing.T) {
			t.Parallel()
			smsc, address := listen(t, smpptest.OperatorConfig{})
			operator := account
			operator.Mode, operator.Address = carrier.Client, address
			s := serve(t, "plain-its", operator, balance)
			<-s.bound
			understood(t, s, smsc.Operator, w)
		})
	}
	for _, w := range serverWays {
		t.Run(fmt.Sprintf("%s, in message_payload %v, the gateway binds", w.command, w.payload), func(t *testing.T) {
			t.Parallel()
			operator := account
			operator.Mode, operator.Rate = carrier.Server, 5000 // of what may come in, too
			s := serve(t, "plain-its", operator, balance)
			understood(t, s, bindTo(t, s, smpptest.OperatorConfig{}).Operator, w)
		})
	}
}

func gsm7(text string) string { return text }

func ucs2(text string) string { return string(gsm.EncodeUCS2(text)) }

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
