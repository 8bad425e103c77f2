//go:build interop

package interop_test

import (
	"bytes"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"zvonok/gateway/smpp"
)

// The library takes our PDUs apart and writes them again: the same octets mean that it found every field where we think
// it is.
func TestLibsmpp34WritesOurPDUsAsWeDo(t *testing.T) {
	gcc := program(t, "libsmpp34", "gcc")
	version, err := exec.Command(program(t, "libsmpp34", "dpkg-query"), "-W", "-f", "${Version}", "libsmpp34-dev").Output()
	if err != nil {
		transcript.add(row{"libsmpp34", "-", "is not on this machine", "NOT TRIED"})
		t.Fatal("libsmpp34 cannot be tried: the package libsmpp34-dev is not on this machine; .ci/interop installs it")
	}
	oracle := filepath.Join(t.TempDir(), "libsmpp34")
	source := filepath.Join("testdata", "libsmpp34.c")
	if out, err := exec.Command(gcc, "-o", oracle, source, "-lsmpp34").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	from, to := smpp.Address{TON: 5, Addr: "SCHOOL"}, smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"}
	ucs2 := []byte{0x04, 0x1C, 0x04, 0x30, 0x04, 0x48, 0x04, 0x30} // Маша
	for _, c := range []struct {
		name string
		pdu  smpp.PDU
	}{
		{"a bind as transceiver", &smpp.Bind{
			Type: smpp.Transceiver, SystemID: "school", Password: "secret", SystemType: "VMS",
			InterfaceVersion: smpp.Version34, AddressTON: 1, AddressNPI: 1, AddressRange: "7900",
		}},
		{"a bind as transmitter", &smpp.Bind{Type: smpp.Transmitter, SystemID: "s", InterfaceVersion: smpp.Version34}},
		{"a bind as receiver", &smpp.Bind{Type: smpp.Receiver, SystemID: "s", InterfaceVersion: smpp.Version34}},
		{"the answer to a bind with our version", &smpp.BindResp{
			Type: smpp.Transceiver, SystemID: "zvonok",
			TLVs: smpp.TLVs{smpp.Uint8(smpp.TagSCInterfaceVersion, smpp.Version34)},
		}},
		{"a part of a long text with a validity and a user data header", &smpp.Message{
			Command: smpp.CmdSubmitSM, Source: from, Destination: to, ESMClass: smpp.ESMClassUDHI,
			ValidityPeriod: "000000010000000R", RegisteredDelivery: 1, DataCoding: 8,
			ShortMessage: append([]byte{6, 8, 4, 0x12, 0x34, 3, 1}, ucs2...),
		}},
		{"a long text in message_payload", &smpp.Message{
			Command: smpp.CmdSubmitSM, Source: from, Destination: to, DataCoding: 8,
			TLVs: smpp.TLVs{{Tag: smpp.TagMessagePayload, Value: bytes.Repeat(ucs2, 60)}},
		}},
		{"a USSD screen", &smpp.Message{
			Command: smpp.CmdDeliverSM, ServiceType: "USSD", Source: from, Destination: to, ShortMessage: []byte("1 Masha"),
			TLVs: smpp.TLVs{smpp.Uint8(smpp.TagUSSDServiceOp, 2)},
		}},
		{"a receipt", &smpp.Message{
			Command: smpp.CmdDeliverSM, Source: to, Destination: from, ESMClass: smpp.ESMClassReceipt,
			ShortMessage: []byte("id:7 sub:001 dlvrd:001 submit date:2605140815 done date:2605140815 stat:DELIVRD err:000"),
			TLVs:         smpp.TLVs{smpp.Text(smpp.TagReceiptedMessageID, "7")},
		}},
		{"a data_sm", &smpp.Message{
			Command: smpp.CmdDataSM, Source: from, Destination: to, RegisteredDelivery: 1,
			TLVs: smpp.TLVs{{Tag: smpp.TagMessagePayload, Value: []byte("hello")}},
		}},
		{"the answer to a submit_sm", &smpp.MessageResp{Command: smpp.CmdSubmitSM.Response(), MessageID: "ab12"}},
		{"the answer to a deliver_sm", &smpp.MessageResp{Command: smpp.CmdDeliverSM.Response()}},
		{"a query", &smpp.Query{MessageID: "ab12", Source: from}},
		{"the answer to a query", &smpp.QueryResp{MessageID: "ab12", FinalDate: "260514081500000+", State: smpp.StateDelivered}},
		{"a cancel", &smpp.Cancel{MessageID: "ab12", Source: from, Destination: to}},
		{"an enquire_link", &smpp.Plain{Command: smpp.CmdEnquireLink}},
		{"the answer to an enquire_link", &smpp.Plain{Command: smpp.CmdEnquireLink.Response()}},
		{"an unbind", &smpp.Plain{Command: smpp.CmdUnbind}},
		{"a generic_nack", &smpp.Plain{Command: smpp.CmdGenericNack}},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdict(t, "libsmpp34", string(version), c.name+" taken apart and written again octet by octet")
			octets, err := smpp.Append(nil, 42, smpp.StatusOK, c.pdu)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(oracle)
			cmd.Stdin = strings.NewReader(hex.EncodeToString(octets) + "\n")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(string(out)); got != hex.EncodeToString(octets) {
				t.Errorf("we write  %x\nit writes %s", octets, got)
			}
		})
	}
}
