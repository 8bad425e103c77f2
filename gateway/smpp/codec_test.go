package smpp_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

type vector struct {
	name, direction, command string
	frame                    []byte
}

// dialogues reads the traces T1 to T3 of the USSD specification.
func dialogues(tb testing.TB) []vector {
	tb.Helper()
	file, err := os.Open("testdata/dialogues.txt")
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	var all []vector
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if strings.HasPrefix(scanner.Text(), "#") {
			continue
		}
		f := strings.Fields(scanner.Text())
		frame, err := hex.DecodeString(f[3])
		if err != nil {
			tb.Fatalf("%s: %v", f[0], err)
		}
		all = append(all, vector{f[0], f[1], f[2], frame})
	}
	if len(all) != 23 {
		tb.Fatalf("%d vectors, want 23", len(all))
	}
	return all
}

func TestEveryVectorOfTheDialoguesDecodesAndEncodesToTheSameOctets(t *testing.T) {
	t.Parallel()
	for _, v := range dialogues(t) {
		h, pdu, err := smpp.Decode(v.frame)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		if h.Command.String() != v.command || pdu.CommandID() != h.Command {
			t.Errorf("%s: command %s, PDU %s, want %s", v.name, h.Command, pdu.CommandID(), v.command)
		}
		again, err := smpp.Append([]byte("before"), h.Sequence, h.Status, pdu)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
		if want := append([]byte("before"), v.frame...); !bytes.Equal(again, want) {
			t.Errorf("%s: encoded\n%x, want\n%x", v.name, again, want)
		}
	}
}

func TestVectorsMeanWhatTheSpecificationSays(t *testing.T) {
	t.Parallel()
	frames := make(map[string][]byte)
	for _, v := range dialogues(t) {
		frames[v.name] = v.frame
	}
	decode := func(name string) smpp.PDU {
		_, pdu, err := smpp.Decode(frames[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return pdu
	}
	equal := func(name string, want smpp.PDU) {
		t.Helper()
		if got := decode(name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	equal("T1.1", &smpp.Bind{
		Type: smpp.Transceiver, SystemID: "esme01", Password: "secret01", SystemType: "USSD",
		InterfaceVersion: smpp.Version34,
	})
	equal("T1.2", &smpp.BindResp{
		Type: smpp.Transceiver, SystemID: "USSDC",
		TLVs: smpp.TLVs{smpp.Uint8(smpp.TagSCInterfaceVersion, smpp.Version34)},
	})
	equal("T1.7", &smpp.BindResp{Type: smpp.Transceiver, NoBody: true})
	if h := smpp.ParseHeader(frames["T1.7"]); h.Status != smpp.StatusInvalidPassword {
		t.Errorf("T1.7: status %s", h.Status)
	}
	phone := smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}
	code := smpp.Address{TON: 0, NPI: 1, Addr: "377"}
	equal("T2.1", &smpp.Message{
		Command: smpp.CmdDeliverSM, ServiceType: "USSD", Source: phone, Destination: code,
		ShortMessage: []byte("*377*888#"),
		TLVs:         smpp.USSD(1, smpp.TLV{Tag: smpp.TagITSSessionInfo, Value: []byte{0x2A, 0x00}}),
	})
	equal("T2.3", &smpp.Message{
		Command: smpp.CmdSubmitSM, ServiceType: "USSD", Source: code, Destination: phone,
		ShortMessage: []byte("1 Balance\n2 Last visit\n3 Russian\n0 Exit"),
		TLVs:         smpp.USSD(2, smpp.TLV{Tag: smpp.TagITSSessionInfo, Value: []byte{0x2A, 0x00}}),
	})
	equal("T2.4", &smpp.MessageResp{Command: smpp.CmdSubmitSMResp, MessageID: "6A1"})
	equal("T3.1", &smpp.Message{
		Command: smpp.CmdDeliverSM, ServiceType: "USSD", Source: phone, Destination: code,
		ShortMessage: []byte("*377*888#"),
		TLVs: smpp.TLVs{ // the operation comes last here, and stays there
			{Tag: smpp.TagITSSessionInfo, Value: []byte{0x2B, 0x00}},
			smpp.Uint8(smpp.TagUSSDServiceOp, 1),
		},
	})
	equal("T3.6", &smpp.MessageResp{Command: smpp.CmdDeliverSMResp})
}

// printable is what the strings of PDUs are drawn from: no NUL, one octet each.
var printable = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x01, Hi: 0x7F, Stride: 1}}, LatinOffset: 1}

// anyPDU draws a PDU of every kind with fields of every allowed length.
func anyPDU() *rapid.Generator[smpp.PDU] {
	text := func(limit int) *rapid.Generator[string] {
		return rapid.StringOfN(rapid.RuneFrom(nil, printable), 0, limit, limit)
	}
	address := func(limit int) *rapid.Generator[smpp.Address] {
		return rapid.Custom(func(t *rapid.T) smpp.Address {
			return smpp.Address{
				TON: rapid.Byte().Draw(t, "ton"), NPI: rapid.Byte().Draw(t, "npi"),
				Addr: text(limit).Draw(t, "addr"),
			}
		})
	}
	octets := func(limit int) *rapid.Generator[[]byte] {
		return rapid.Custom(func(t *rapid.T) []byte {
			b := rapid.SliceOfN(rapid.Byte(), 0, limit).Draw(t, "octets")
			if len(b) == 0 {
				return nil
			}
			return b
		})
	}
	tlvs := rapid.Custom(func(t *rapid.T) smpp.TLVs {
		var all smpp.TLVs
		for range rapid.IntRange(0, 4).Draw(t, "tlvs") {
			all = append(all, smpp.TLV{
				Tag:   smpp.Tag(rapid.Uint16().Draw(t, "tag")),
				Value: append([]byte{}, octets(300).Draw(t, "value")...),
			})
		}
		return all
	})
	bindType := rapid.SampledFrom([]smpp.BindType{smpp.Transceiver, smpp.Transmitter, smpp.Receiver})
	return rapid.Custom(func(t *rapid.T) smpp.PDU {
		octet := func(name string) uint8 { return rapid.Byte().Draw(t, name) }
		switch rapid.IntRange(0, 12).Draw(t, "kind") {
		case 0:
			return &smpp.Message{
				Command:     rapid.SampledFrom([]smpp.CommandID{smpp.CmdSubmitSM, smpp.CmdDeliverSM}).Draw(t, "command"),
				ServiceType: text(5).Draw(t, "service_type"),
				Source:      address(20).Draw(t, "source"), Destination: address(20).Draw(t, "destination"),
				ESMClass: octet("esm_class"), ProtocolID: octet("protocol_id"), Priority: octet("priority"),
				ScheduleAt: text(16).Draw(t, "schedule"), ValidityPeriod: text(16).Draw(t, "validity"),
				RegisteredDelivery: octet("registered"), ReplaceIfPresent: octet("replace"),
				DataCoding: octet("data_coding"), DefaultMessageID: octet("default"),
				ShortMessage: octets(254).Draw(t, "short_message"), TLVs: tlvs.Draw(t, "tlvs"),
			}
		case 1:
			return &smpp.Message{
				Command: smpp.CmdDataSM, ServiceType: text(5).Draw(t, "service_type"),
				Source: address(64).Draw(t, "source"), Destination: address(64).Draw(t, "destination"),
				ESMClass: octet("esm_class"), RegisteredDelivery: octet("registered"), DataCoding: octet("data_coding"),
				TLVs: tlvs.Draw(t, "tlvs"),
			}
		case 2:
			resp := &smpp.MessageResp{Command: rapid.SampledFrom([]smpp.CommandID{
				smpp.CmdSubmitSMResp, smpp.CmdDeliverSMResp, smpp.CmdDataSMResp,
			}).Draw(t, "command")}
			if resp.NoBody = rapid.Bool().Draw(t, "no body"); !resp.NoBody {
				resp.MessageID, resp.TLVs = text(64).Draw(t, "id"), tlvs.Draw(t, "tlvs")
			}
			return resp
		case 3:
			return &smpp.Bind{
				Type: bindType.Draw(t, "type"), SystemID: text(15).Draw(t, "system_id"),
				Password: text(8).Draw(t, "password"), SystemType: text(12).Draw(t, "system_type"),
				InterfaceVersion: octet("version"), AddressTON: octet("ton"), AddressNPI: octet("npi"),
				AddressRange: text(40).Draw(t, "range"),
			}
		case 4:
			resp := &smpp.BindResp{Type: bindType.Draw(t, "type")}
			if resp.NoBody = rapid.Bool().Draw(t, "no body"); !resp.NoBody {
				resp.SystemID, resp.TLVs = text(15).Draw(t, "system_id"), tlvs.Draw(t, "tlvs")
			}
			return resp
		case 5:
			return &smpp.Query{MessageID: text(64).Draw(t, "id"), Source: address(20).Draw(t, "source")}
		case 6:
			resp := &smpp.QueryResp{}
			if resp.NoBody = rapid.Bool().Draw(t, "no body"); !resp.NoBody {
				resp.MessageID, resp.FinalDate = text(64).Draw(t, "id"), text(16).Draw(t, "date")
				resp.State, resp.ErrorCode = smpp.MessageState(octet("state")), octet("error")
			}
			return resp
		case 7:
			return &smpp.Cancel{
				ServiceType: text(5).Draw(t, "service_type"), MessageID: text(64).Draw(t, "id"),
				Source: address(20).Draw(t, "source"), Destination: address(20).Draw(t, "destination"),
			}
		case 8:
			return &smpp.Replace{
				MessageID: text(64).Draw(t, "id"), Source: address(20).Draw(t, "source"),
				ScheduleAt: text(16).Draw(t, "schedule"), ValidityPeriod: text(16).Draw(t, "validity"),
				RegisteredDelivery: octet("registered"), DefaultMessageID: octet("default"),
				ShortMessage: octets(254).Draw(t, "short_message"),
			}
		case 9:
			return &smpp.AlertNotification{
				Source: address(64).Draw(t, "source"), ESME: address(64).Draw(t, "esme"), TLVs: tlvs.Draw(t, "tlvs"),
			}
		case 10:
			return &smpp.Outbind{SystemID: text(15).Draw(t, "system_id"), Password: text(8).Draw(t, "password")}
		case 11:
			return &smpp.Plain{Command: rapid.SampledFrom([]smpp.CommandID{
				smpp.CmdEnquireLink, smpp.CmdEnquireLinkResp, smpp.CmdUnbind, smpp.CmdUnbindResp,
				smpp.CmdGenericNack, smpp.CmdCancelSMResp, smpp.CmdReplaceSMResp,
			}).Draw(t, "command")}
		default:
			return &smpp.Raw{Command: smpp.CmdSubmitMulti, Body: octets(300).Draw(t, "body")}
		}
	})
}

func TestWhatIsEncodedDecodesToTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pdu := anyPDU().Draw(t, "pdu")
		sequence, status := rapid.Uint32().Draw(t, "sequence"), smpp.Status(rapid.Uint32().Draw(t, "status"))
		frame, err := smpp.Append(nil, sequence, status, pdu)
		if err != nil {
			t.Fatal(err)
		}
		h, got, err := smpp.Decode(frame)
		if err != nil {
			t.Fatal(err)
		}
		want := smpp.Header{Length: uint32(len(frame)), Command: pdu.CommandID(), Status: status, Sequence: sequence}
		if h != want {
			t.Fatalf("header %+v, want %+v", h, want)
		}
		if !reflect.DeepEqual(got, pdu) {
			t.Fatalf("got %+v, want %+v", got, pdu)
		}
	})
}

func TestAFieldThatDoesNotFitIsRefusedAndLeavesTheBufferAsItWas(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	values := func(n int) smpp.TLVs { return smpp.TLVs{{Value: make([]byte, n)}} }
	message := func(change func(*smpp.Message)) smpp.PDU {
		m := &smpp.Message{Command: smpp.CmdSubmitSM}
		change(m)
		return m
	}
	for name, pdu := range map[string]smpp.PDU{
		"a short message of 255 octets":     message(func(m *smpp.Message) { m.ShortMessage = make([]byte, 255) }),
		"a source of 21 octets":             message(func(m *smpp.Message) { m.Source.Addr = long(21) }),
		"a destination of 21 octets":        message(func(m *smpp.Message) { m.Destination.Addr = long(21) }),
		"a NUL inside an address":           message(func(m *smpp.Message) { m.Source.Addr = "7900\x00\x01" }),
		"a service type of 6 octets":        message(func(m *smpp.Message) { m.ServiceType = long(6) }),
		"a validity period of 17 octets":    message(func(m *smpp.Message) { m.ValidityPeriod = long(17) }),
		"a TLV of 65,536 octets":            message(func(m *smpp.Message) { m.TLVs = values(65536) }),
		"a PDU above 64 KiB":                message(func(m *smpp.Message) { m.TLVs = values(65500) }),
		"a data_sm address of 65 octets":    &smpp.Message{Command: smpp.CmdDataSM, Source: smpp.Address{Addr: long(65)}},
		"a system_id of 16 octets":          &smpp.Bind{SystemID: long(16)},
		"a password of 9 octets":            &smpp.Bind{Password: long(9)},
		"a NUL inside a password":           &smpp.Bind{Password: "a\x00b"},
		"a system type of 13 octets":        &smpp.Bind{SystemType: long(13)},
		"an address range of 41 octets":     &smpp.Bind{AddressRange: long(41)},
		"a message id of 256 octets":        &smpp.MessageResp{Command: smpp.CmdSubmitSMResp, MessageID: long(256)},
		"a replacement text of 255 octets":  &smpp.Replace{ShortMessage: make([]byte, 255)},
		"an outbind password of 9 octets":   &smpp.Outbind{Password: long(9)},
		"a cancel with a long message id":   &smpp.Cancel{MessageID: long(256)},
		"a query with a long source":        &smpp.Query{Source: smpp.Address{Addr: long(21)}},
		"an alert with a source of 65":      &smpp.AlertNotification{Source: smpp.Address{Addr: long(65)}},
		"a query answer with a long date":   &smpp.QueryResp{FinalDate: long(17)},
		"a bind answer with a long name":    &smpp.BindResp{SystemID: long(16)},
		"a NUL inside a validity period":    message(func(m *smpp.Message) { m.ValidityPeriod = "\x00" }),
		"a NUL inside a service type":       message(func(m *smpp.Message) { m.ServiceType = "a\x00" }),
		"a raw PDU whose body is too large": &smpp.Raw{Body: make([]byte, smpp.MaxPDU)},
	} {
		out, err := smpp.Append([]byte("kept"), 1, 0, pdu)
		if !errors.Is(err, smpp.ErrNotEncodable) {
			t.Errorf("%s: error %v", name, err)
		}
		if string(out) != "kept" {
			t.Errorf("%s: buffer is %q", name, out)
		}
	}
}

func TestTheLongestPayloadThatFitsGoesThrough(t *testing.T) {
	t.Parallel()
	// fiorix drops the link above 4 KB (spec/reliability.md, section 1b).
	m := &smpp.Message{Command: smpp.CmdSubmitSM, TLVs: smpp.TLVs{
		{Tag: smpp.TagMessagePayload, Value: bytes.Repeat([]byte{0x04, 0x10}, 32_000)},
	}}
	frame, err := smpp.Append(nil, 1, 0, m)
	if err != nil {
		t.Fatal(err)
	}
	_, pdu, err := smpp.Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	if got := pdu.(*smpp.Message).Octets(); !bytes.Equal(got, m.TLVs[0].Value) {
		t.Errorf("payload has %d octets, want 64000", len(got))
	}
}

func TestABrokenBodyIsAnErrorThatKnowsTheAnswer(t *testing.T) {
	t.Parallel()
	good, err := smpp.Append(nil, 7, 0, &smpp.Message{
		Command: smpp.CmdSubmitSM, Source: smpp.Address{Addr: "Zvonok"}, Destination: smpp.Address{Addr: "79000000001"},
		ShortMessage: []byte("text"),
	})
	if err != nil {
		t.Fatal(err)
	}
	withLength := func(frame []byte, more ...byte) []byte {
		frame = append(bytes.Clone(frame), more...)
		frame[2], frame[3] = byte(len(frame)>>8), byte(len(frame))
		return frame
	}
	tooLong := []byte("123456789012345678901234")
	for name, c := range map[string]struct {
		frame  []byte
		status smpp.Status
	}{
		"cut inside the text":            {withLength(good[:len(good)-1]), smpp.StatusInvalidMessageLength},
		"cut inside an address":          {withLength(good[:30]), smpp.StatusInvalidMessageLength},
		"nothing but a header":           {withLength(good[:16]), smpp.StatusInvalidMessageLength},
		"a source without end":           {withLength(good[:19], tooLong...), smpp.StatusInvalidMessageLength},
		"a source of 24 octets":          {withLength(good[:19], append(tooLong, 0)...), smpp.StatusInvalidSourceAddress},
		"a length that is not the frame": {append(bytes.Clone(good), 0), smpp.StatusInvalidCommandLength},
	} {
		h, _, err := smpp.Decode(c.frame)
		var bad *smpp.DecodeError
		if !errors.As(err, &bad) || bad.Status != c.status {
			t.Errorf("%s: error %v, want status %s", name, err, c.status)
		}
		if h.Sequence != 7 || h.Command != smpp.CmdSubmitSM {
			t.Errorf("%s: header %+v is lost", name, h)
		}
	}
	if _, _, err := smpp.Decode(good[:15]); err == nil {
		t.Error("a frame shorter than a header decodes")
	}
}

// python-smpplib crashed on TLVs it did not know, gateways pad (spec/ussd.md,
// section 5).
func TestUnknownTLVsAreKeptAndAShortTailIsSetAside(t *testing.T) {
	t.Parallel()
	m := &smpp.Message{Command: smpp.CmdDeliverSM, TLVs: smpp.TLVs{
		{Tag: 0x4100, Value: []byte("ru")}, {Tag: 0x4100, Value: []byte("en")}, {Tag: 0xFFFF, Value: []byte{}},
	}}
	frame, err := smpp.Append(nil, 1, 0, m)
	if err != nil {
		t.Fatal(err)
	}
	for name, tail := range map[string][]byte{
		"three octets":            {1, 2, 3},
		"a length beyond the end": {0x05, 0x01, 0x00, 0x02, 0x01},
		"one NUL":                 {0},
	} {
		padded := append(bytes.Clone(frame), tail...)
		padded[3] += byte(len(tail))
		_, pdu, err := smpp.Decode(padded)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := pdu.(*smpp.Message)
		if !reflect.DeepEqual(got.TLVs, m.TLVs) || !bytes.Equal(got.Tail, tail) {
			t.Errorf("%s: TLVs %v, tail %x", name, got.TLVs, got.Tail)
		}
	}
}

func TestTheOperationComesFirstInAUSSDMessageWeBuild(t *testing.T) {
	t.Parallel()
	ts := smpp.USSD(17, smpp.Uint16(smpp.TagUserMessageReference, 0x0102), smpp.Uint32(smpp.TagUSSDSessionID, 0x01020304))
	if ts[0].Tag != smpp.TagUSSDServiceOp || !bytes.Equal(ts[0].Value, []byte{17}) {
		t.Errorf("first TLV is %v", ts[0])
	}
	m := smpp.Message{TLVs: ts}
	if op, ok := m.USSDOp(); !ok || op != 17 {
		t.Errorf("operation %d, %v", op, ok)
	}
	for tag, want := range map[smpp.Tag]uint32{
		smpp.TagUserMessageReference: 0x0102, smpp.TagUSSDSessionID: 0x01020304, smpp.TagUSSDServiceOp: 17,
	} {
		if n, ok := ts.Uint(tag); !ok || n != want {
			t.Errorf("%s is %#x, want %#x", tag, n, want)
		}
	}
	if _, ok := ts.Uint(smpp.TagCallbackNum); ok {
		t.Error("an absent TLV has a value")
	}
	receipt := smpp.TLVs{
		smpp.Text(smpp.TagReceiptedMessageID, "A1"), {Tag: smpp.TagMessagePayload, Value: []byte("x\x00y")},
	}
	if id, ok := receipt.Text(smpp.TagReceiptedMessageID); !ok || id != "A1" {
		t.Errorf("receipted_message_id is %q", id)
	}
	if text, _ := receipt.Text(smpp.TagMessagePayload); text != "x" {
		t.Errorf("text up to the NUL is %q", text)
	}
}

// Fault row 21: an ordinary text that quotes a receipt is no receipt.
func TestOnlyTheESMClassMakesAReceipt(t *testing.T) {
	t.Parallel()
	for esmClass, want := range map[uint8]bool{
		0x00: false, 0x02: false, 0x08: false, 0x10: false, 0x18: false, 0x40: false,
		0x04: true, 0x07: true, 0x20: true, 0x44: true,
	} {
		m := smpp.Message{ESMClass: esmClass, ShortMessage: []byte("id:1 sub:001 dlvrd:001 stat:DELIVRD err:000")}
		if got := m.IsReceipt(); got != want {
			t.Errorf("esm_class %#02x: %v", esmClass, got)
		}
	}
}

func TestEveryNamedCodeHasItsNameOfTheSpecification(t *testing.T) {
	t.Parallel()
	// Every code of the table in spec/smpp.md.
	for status, want := range map[smpp.Status]string{
		0x00: "ESME_ROK", 0x01: "ESME_RINVMSGLEN", 0x02: "ESME_RINVCMDLEN", 0x03: "ESME_RINVCMDID",
		0x04: "ESME_RINVBNDSTS", 0x05: "ESME_RALYBND", 0x06: "ESME_RINVPRTFLG", 0x07: "ESME_RINVREGDLVFLG",
		0x08: "ESME_RSYSERR", 0x0A: "ESME_RINVSRCADR", 0x0B: "ESME_RINVDSTADR", 0x0C: "ESME_RINVMSGID",
		0x0D: "ESME_RBINDFAIL", 0x0E: "ESME_RINVPASWD", 0x0F: "ESME_RINVSYSID", 0x53: "ESME_RINVSYSTYP",
		0x11: "ESME_RCANCELFAIL", 0x13: "ESME_RREPLACEFAIL", 0x14: "ESME_RMSGQFUL", 0x15: "ESME_RINVSERTYP",
		0x33: "ESME_RINVNUMDESTS", 0x34: "ESME_RINVDLNAME", 0x40: "ESME_RINVDESTFLAG", 0x42: "ESME_RINVSUBREP",
		0x43: "ESME_RINVESMCLASS", 0x44: "ESME_RCNTSUBDL", 0x45: "ESME_RSUBMITFAIL", 0x48: "ESME_RINVSRCTON",
		0x49: "ESME_RINVSRCNPI", 0x50: "ESME_RINVDSTTON", 0x51: "ESME_RINVDSTNPI", 0x54: "ESME_RINVREPFLAG",
		0x55: "ESME_RINVNUMMSGS", 0x58: "ESME_RTHROTTLED", 0x61: "ESME_RINVSCHED", 0x62: "ESME_RINVEXPIRY",
		0x63: "ESME_RINVDFTMSGID", 0x64: "ESME_RX_T_APPN", 0x65: "ESME_RX_P_APPN", 0x66: "ESME_RX_R_APPN",
		0x67: "ESME_RQUERYFAIL", 0xC0: "ESME_RINVOPTPARSTREAM", 0xC1: "ESME_ROPTPARNOTALLWD",
		0xC2: "ESME_RINVPARLEN", 0xC3: "ESME_RMISSINGOPTPARAM", 0xC4: "ESME_RINVOPTPARAMVAL",
		0xFE: "ESME_RDELIVERYFAILURE", 0xFF: "ESME_RUNKNOWNERR", 0x412: "0x00000412",
	} {
		if got := status.String(); got != want {
			t.Errorf("%#02x is %s, want %s", uint32(status), got, want)
		}
	}
	for status, want := range map[smpp.Status]bool{0x3FF: false, 0x400: true, 0x4FF: true, 0x500: false} {
		if status.Vendor() != want {
			t.Errorf("%s is in the vendor range: %v", status, !want)
		}
	}
}

func TestCommandsAreNamedAsInTheSpecification(t *testing.T) {
	t.Parallel()
	for command, want := range map[smpp.CommandID]string{
		0x80000000: "generic_nack", 0x01: "bind_receiver", 0x02: "bind_transmitter", 0x03: "query_sm", 0x04: "submit_sm",
		0x05: "deliver_sm", 0x06: "unbind", 0x07: "replace_sm", 0x08: "cancel_sm", 0x09: "bind_transceiver",
		0x0B: "outbind", 0x15: "enquire_link", 0x21: "submit_multi", 0x102: "alert_notification", 0x103: "data_sm",
	} {
		if got := command.String(); got != want {
			t.Errorf("%#x is %s, want %s", uint32(command), got, want)
		}
		switch command {
		case smpp.CmdGenericNack, smpp.CmdOutbind, smpp.CmdAlertNotification: // have no answer
			continue
		}
		resp := command.Response()
		if got := resp.String(); got != want+"_resp" || !resp.IsResponse() || command.IsResponse() {
			t.Errorf("%#x is %s, want %s_resp", uint32(resp), got, want)
		}
	}
	if got := smpp.CommandID(0xDEAD).String(); got != "0x0000dead" {
		t.Errorf("an unknown command is %s", got)
	}
	for tag, want := range map[smpp.Tag]string{
		0x001E: "receipted_message_id", 0x0204: "user_message_reference", 0x020C: "sar_msg_ref_num",
		0x0423: "network_error_code", 0x0424: "message_payload", 0x0427: "message_state", 0x0501: "ussd_service_op",
		0x1383: "its_session_info", 0x1501: "ussd_session_id", 0x4100: "0x4100",
	} {
		if got := tag.String(); got != want {
			t.Errorf("%#x is %s, want %s", uint16(tag), got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range dialogues(f) {
		f.Add(v.frame)
	}
	for _, g := range smpptest.GarbagePDUs() {
		if len(g.Octets) < 1000 {
			f.Add(g.Octets)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		h, pdu, err := smpp.Decode(frame)
		if !bytes.Equal(frame, before) {
			t.Fatal("decoding changed the frame")
		}
		if err != nil {
			var bad *smpp.DecodeError
			if !errors.As(err, &bad) || bad.Status == smpp.StatusOK || pdu != nil {
				t.Fatalf("error %v with PDU %v", err, pdu)
			}
			return
		}
		again, err := smpp.Append(nil, h.Sequence, h.Status, pdu)
		if err != nil {
			if len(frame) > smpp.MaxPDU {
				return
			}
			t.Fatalf("decoded PDU does not encode: %v", err)
		}
		if want := frame[:len(frame)-len(tailOf(pdu))]; len(again) != len(want) || !bytes.Equal(again[4:], want[4:]) {
			t.Fatalf("encoded\n%x, was\n%x", again, frame)
		}
	})
}

func tailOf(pdu smpp.PDU) []byte {
	tail := reflect.ValueOf(pdu).Elem().FieldByName("Tail")
	if !tail.IsValid() {
		return nil
	}
	return tail.Bytes()
}
