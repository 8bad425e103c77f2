package ussd

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/gateway/smpp/smpptest"
)

var update = flag.Bool("update", false, "record the dialogues of testdata/dialogues anew")

// vectors are the profiles whose dialogue comes from the specification (ussd.md section 2, T3 and T2); the others were
// recorded here from the operator in a box.
var vectors = []string{"plain-its", "its-units"}

// recording returns the file of a profile's dialogue and the menu it was held with: T2 is in English.
func recording(profile string) (file string, show func(context.Context, Visit) (Screen, error)) {
	return filepath.Join("testdata", "dialogues", profile+".rec"), func(ctx context.Context, v Visit) (Screen, error) {
		v.Latin = profile == "plain-its"
		return balance(ctx, v)
	}
}

// Issue 4, item 1: each profile has its own recorded dialogue, octet for octet from the bind to the last page.
func TestTheRecordedDialoguesAreHeldOctetForOctet(t *testing.T) {
	t.Parallel()
	for name, behaviour := range gateways(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, show := recording(name)
			if *update && !slices.Contains(vectors, name) {
				record(t, name, file, behaviour, show)
			}
			source, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer source.Close()
			recorded, err := smpptest.ReadRecording(source)
			if err != nil {
				t.Fatal(err)
			}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			operator := account
			operator.Mode, operator.Address = carrier.Client, listener.Addr().String()
			serve(t, name, operator, show)
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := smpptest.Replay(ctx, conn, recorded, smpptest.Outward, false); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEveryProfileHasARecordedDialogue(t *testing.T) {
	t.Parallel()
	for _, p := range table() {
		if _, ok := gateways(t)[p.Name]; !ok {
			t.Errorf("no gateway in the box behaves like the profile %s", p.Name)
		}
	}
}

// record holds a dialogue with the operator in a box and writes down what passed over the line.
func record(
	t *testing.T, profile, file string, behaviour smpptest.USSDProfile, show func(context.Context, Visit) (Screen, error),
) {
	var raw bytes.Buffer
	recorder := smpptest.NewRecorder(&raw)
	smsc, err := smpptest.Start(smpptest.Config{
		OperatorConfig: smpptest.OperatorConfig{Record: recorder}, SystemID: "esme01", Password: "secret01",
	})
	if err != nil {
		t.Fatal(err)
	}
	operator := account
	operator.Mode, operator.Address = carrier.Client, smsc.Addr()
	s := serve(t, profile, operator, show)
	<-s.bound
	phone := &handset{t: t, operator: smsc.Operator, profile: behaviour, number: "79000000001"}
	phone.dial("*377*888#")
	phone.press("1")
	s.close()
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if err := smsc.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := recorder.Close(); err != nil {
		t.Fatal(err)
	}
	frames, err := smpptest.ReadRecording(&raw)
	if err != nil {
		t.Fatal(err)
	}
	out := &strings.Builder{}
	fmt.Fprintf(out, "# %s: recorded from the operator in a box.\n", profile)
	fmt.Fprintln(out, "# Each line: microseconds, connection, direction seen from the operator, PDU. See smpptest.Recorder.")
	for _, f := range frames {
		command := smpp.ParseHeader(f.Frame).Command
		switch command {
		case smpp.CmdEnquireLink, smpp.CmdEnquireLinkResp, smpp.CmdUnbind, smpp.CmdUnbindResp:
			continue
		}
		fmt.Fprintf(out, "# %s\n0 1 %s %x\n", command, f.Direction, f.Frame)
	}
	if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
