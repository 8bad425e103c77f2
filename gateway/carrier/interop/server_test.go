//go:build interop

package interop_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"zvonok/gateway/smpp"
)

// boundSession returns the session with the gateway that has bound to our server.
func boundSession(t *testing.T, server *smpp.Server) *smpp.Session {
	t.Helper()
	sessions := server.Sessions("gate")
	if len(sessions) == 0 {
		t.Fatal("nobody is bound")
	}
	return sessions[len(sessions)-1]
}

// sendReceipt tells the gateway that the message it submitted from a phone was delivered, in the form of SMPP 3.4
// appendix B.
func sendReceipt(t *testing.T, server *smpp.Server, id, from string) {
	t.Helper()
	now := time.Now().UTC().Format("0601021504")
	text := fmt.Sprintf("id:%s sub:001 dlvrd:001 submit date:%s done date:%s stat:DELIVRD err:000 text:", id, now, now)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	outcome, err := boundSession(t, server).Do(ctx, smpp.Request{PDU: &smpp.Message{
		Command: smpp.CmdDeliverSM, ESMClass: smpp.ESMClassReceipt,
		Source: smpp.Address{TON: 3, Addr: "377"}, Destination: smpp.Address{TON: 1, NPI: 1, Addr: from},
		ShortMessage: []byte(text),
		TLVs: smpp.TLVs{
			smpp.Text(smpp.TagReceiptedMessageID, id), smpp.Uint8(smpp.TagMessageState, uint8(smpp.StateDelivered)),
		},
	}})
	if err != nil || outcome.Status != smpp.StatusOK {
		t.Errorf("the receipt was answered with %s, %v", outcome.Status, err)
	}
}

// closeSession unbinds the gateway; an answer must come.
func closeSession(t *testing.T, server *smpp.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := boundSession(t, server).Close(ctx); err != nil {
		t.Errorf("unbind: %v", err)
	}
}

// readsCyrillic demands that the dissector reads our letters.
func (d *dialogue) readsCyrillic() {
	d.t.Helper()
	for _, text := range d.texts {
		if strings.Contains(text, "Маша П. вошла в школу") {
			return
		}
	}
	d.t.Errorf("the dissector did not read the Cyrillic text: %q", d.texts)
}
