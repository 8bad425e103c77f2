package smpp_test

import (
	"context"
	"fmt"
	"time"

	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

// An ESME binds to an SMSC, submits a message and waits for its receipt.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	smsc, err := smpptest.Start(smpptest.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	receipts := make(chan *smpp.Message)
	session, err := smpp.Dial(ctx, smpp.ClientConfig{
		Address:  smsc.Addr(),
		SystemID: "zvonok",
		Password: "secret",
		Session: smpp.SessionConfig{
			Window: 20,
			Handle: func(in *smpp.Inbound) {
				m, ok := in.PDU.(*smpp.Message)
				if !ok {
					_ = in.Answer(smpp.StatusInvalidCommandID, "")
					return
				}
				receipts <- m // store it, and only then
				_ = in.Answer(smpp.StatusOK, "")
			},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = session.Submit(ctx, smpp.Request{
		PDU: &smpp.Message{
			Command:            smpp.CmdSubmitSM,
			Source:             smpp.Address{TON: 5, Addr: "Zvonok"},
			Destination:        smpp.Address{TON: 1, NPI: 1, Addr: "79000000001"},
			ValidityPeriod:     smpp.FormatPeriod(20 * time.Minute),
			RegisteredDelivery: 1,
			ShortMessage:       []byte("Hello"),
		},
		Token: 42,
		Done: func(o smpp.Outcome) {
			fmt.Println("message", o.Token, o.Kind, o.Status, "id", o.MessageID())
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	receipt := <-receipts
	fmt.Println("receipt:", receipt.IsReceipt())
	if err := session.Close(ctx); err != nil {
		fmt.Println(err)
	}
	if err := smsc.Close(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("phone shows:", smsc.MessagesTo("79000000001")[0].Text)
	// Unordered output:
	// message 42 answered ESME_ROK id 2700000001
	// receipt: true
	// phone shows: Hello
}
