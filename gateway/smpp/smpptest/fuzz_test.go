package smpptest

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"zvonok/gateway/smpp"
)

// Whatever a message holds, it has a part number within its total, no more
// octets than came, and a text.
func FuzzSegment(f *testing.F) {
	f.Add(uint8(0x40), uint8(8), []byte("\x05\x00\x03\x07\x02\x01\x04\x11"), []byte{})
	f.Add(uint8(0x40), uint8(0), []byte("\x06\x08\x04\x01\x07\x02\x02text"), []byte{})
	f.Add(uint8(0), uint8(0), []byte("\x1b\x65\x1b"), []byte{2})
	f.Add(uint8(0x40), uint8(4), []byte{255, 0, 3}, []byte{0, 0})
	f.Fuzz(func(t *testing.T, esmClass, dataCoding uint8, octets, number []byte) {
		m := &smpp.Message{ESMClass: esmClass, DataCoding: dataCoding, ShortMessage: octets, TLVs: smpp.TLVs{
			smpp.Uint16(smpp.TagSARMsgRefNum, 1), smpp.Uint8(smpp.TagSARTotalSegments, 2),
			{Tag: smpp.TagSARSegmentSeqnum, Value: number},
		}}
		s := segmentOf(m)
		if s.number < 1 || s.number > s.total || s.total > 255 || !bytes.HasSuffix(octets, s.octets) {
			t.Fatalf("segment %+v", s)
		}
		if text := decodeText(dataCoding, s.octets); !utf8.ValidString(text) {
			t.Fatalf("text %q", text)
		}
	})
}

func FuzzReadRecording(f *testing.F) {
	f.Add("# x\n12 1 in 00000010000000150000000000000001\n13 1 out 00\n")
	f.Fuzz(func(t *testing.T, text string) {
		recording, err := ReadRecording(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, rec := range recording {
			if rec.Direction != Inward && rec.Direction != Outward {
				t.Fatalf("direction %d", rec.Direction)
			}
		}
	})
}

// A text that a phone writes and a phone reads is the same, in the GSM alphabet
// if it fits and in UCS-2 if not.
func FuzzText(f *testing.F) {
	f.Add("€ [ok] {x}")
	f.Add("Баланс: 125,00 р.")
	f.Add("👍")
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "?")
		dataCoding, octets := encodeText(text)
		if got := decodeText(dataCoding, octets); got != text {
			t.Fatalf("%q came back as %q, data coding %d", text, got, dataCoding)
		}
	})
}
