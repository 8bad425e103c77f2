package smpp_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/fiorix/go-smpp/smpp/pdu"
	"github.com/fiorix/go-smpp/smpp/pdu/pdufield"

	"zvonok/gateway/smpp"
)

var cyrillic = bytes.Repeat([]byte{0x04, 0x10}, 67)

// typical is a notice in Russian, one part of UCS-2, with a receipt asked for.
func typical() *smpp.Message {
	return &smpp.Message{
		Command:            smpp.CmdSubmitSM,
		Source:             smpp.Address{TON: 5, NPI: 0, Addr: "Zvonok"},
		Destination:        smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
		ValidityPeriod:     "000000001500000R",
		RegisteredDelivery: 1,
		DataCoding:         8,
		ShortMessage:       cyrillic,
	}
}

func typicalFrame(tb testing.TB) []byte {
	frame, err := smpp.Append(nil, 1, 0, typical())
	if err != nil {
		tb.Fatal(err)
	}
	return frame
}

func TestEncodingATypicalMessageTakesAtMostTwoAllocationsAndSoDoesDecoding(t *testing.T) {
	m, frame := typical(), typicalFrame(t)
	buf := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := smpp.Append(buf, 1, 0, m); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("encoding takes %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := smpp.Decode(frame); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("decoding takes %v allocations", n)
	}
}

func BenchmarkEncodeSubmitSM(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 512)
		for b.Loop() {
			m := typical()
			var err error
			if buf, err = smpp.Append(buf[:0], 1, 0, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fiorix", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p := pdu.NewSubmitSM(nil)
			f := p.Fields()
			for _, field := range []struct {
				name  pdufield.Name
				value any
			}{
				{pdufield.SourceAddrTON, 5},
				{pdufield.SourceAddrNPI, 0},
				{pdufield.SourceAddr, "Zvonok"},
				{pdufield.DestAddrTON, 1},
				{pdufield.DestAddrNPI, 1},
				{pdufield.DestinationAddr, "79000000001"},
				{pdufield.ValidityPeriod, "000000001500000R"},
				{pdufield.RegisteredDelivery, 1},
				{pdufield.DataCoding, 8},
				{pdufield.ShortMessage, cyrillic},
			} {
				if err := f.Set(field.name, field.value); err != nil {
					b.Fatal(err)
				}
			}
			if err := p.SerializeTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeSubmitSM(b *testing.B) {
	frame := typicalFrame(b)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := smpp.Decode(frame); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fiorix", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := pdu.Decode(bytes.NewReader(frame)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
