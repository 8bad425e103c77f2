// Zvonok-operator is a mobile operator in a box: an SMSC with a USSD gateway
// that behaves as well or as badly as it is told to, with a page of phones. It
// is for development and for certification of what speaks SMPP with operators.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"zvonok/cmd/zvonok-operator/phones"
	"zvonok/gateway/smpp/smpptest"
)

// version is set by the linker (make build).
var version = "unknown"

const stopTimeout = 10 * time.Second

// options is the command line.
type options struct {
	SMPP     string `name:"smpp" default:"127.0.0.1:2776" help:"Where the ESME binds (host:port; port 0 picks a free one)."`
	Phones   string `default:"127.0.0.1:8081" help:"Where the page of phones is; empty for none."`
	SystemID string `name:"system-id" default:"school" help:"What the ESME binds with; empty lets everybody in."`
	Password string `default:"" help:"Its password."`
	Profile  string `default:"honest" help:"How the operator behaves; --list shows all."`
	USSD     string `name:"ussd" default:"plain-its" help:"How its USSD gateway speaks; --list shows all."`
	Seed     uint64 `default:"1" help:"Decides everything left to chance."`
	City     string `type:"existingfile" help:"What the page shows, as JSON (see the package phones): phones, schools, devices." placeholder:"FILE"`
	Gateway  string `default:"http://127.0.0.1:8080" help:"The device interface the page's doors and tills use."`
	Record   string `type:"path" help:"Write what passes over the lines to this file, for --replay." placeholder:"FILE"`
	Replay   string `type:"existingfile" help:"Send a recorded session's PDUs again instead of behaving." placeholder:"FILE"`
	State    string `type:"path" default:"zvonok-operator.json" help:"Keeps the devices' event numbers over a restart." placeholder:"FILE"`
	List     bool   `help:"List the profiles and stop."`
	Version  bool   `help:"Print the version and stop."`
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "zvonok-operator:", err)
		var usage usageError
		if errors.As(err, &usage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

type usageError struct{ error }

func run(args []string, stdout, stderr io.Writer) error {
	var o options
	parser, err := kong.New(&o, kong.Name("zvonok-operator"), kong.Writers(stdout, stderr),
		kong.Description("A mobile operator in a box, with a page of phones."))
	if err != nil {
		return err
	}
	if _, err := parser.Parse(args); err != nil {
		return usageError{err}
	}
	switch {
	case o.Version:
		_, err := fmt.Fprintln(stdout, "zvonok-operator", version)
		return err
	case o.List:
		return list(stdout)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.Replay != "" {
		return replay(ctx, o, stdout)
	}
	return operate(ctx, o, stdout, slog.New(slog.NewTextHandler(stderr, nil)))
}

// replay plays the operator's side of a recording to the first that connects.
func replay(ctx context.Context, o options, stdout io.Writer) error {
	file, err := os.Open(o.Replay)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	defer file.Close()
	recording, err := smpptest.ReadRecording(file)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	if len(recording) == 0 {
		return fmt.Errorf("replay: %s holds no PDU", o.Replay)
	}
	listener, err := net.Listen("tcp", o.SMPP)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	fmt.Fprintf(stdout, "SMPP %s, replaying %s to the first that connects\n", listener.Addr(), o.Replay)
	conn, err := listener.Accept()
	listener.Close()
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	defer conn.Close()
	if err := smpptest.Replay(ctx, conn, smpptest.OneLine(recording, recording[0].Line), smpptest.Outward, true); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, "the other side did as recorded")
	return err
}

func list(w io.Writer) error {
	fmt.Fprintln(w, "Profiles (--profile):")
	for _, p := range smpptest.Profiles() {
		fmt.Fprintf(w, "  %-16s %s\n", p.Name, p.About)
	}
	fmt.Fprintln(w, "USSD profiles (--ussd):")
	for _, p := range smpptest.USSDProfiles() {
		fmt.Fprintf(w, "  %s\n", p.Name)
	}
	return nil
}

func operate(ctx context.Context, o options, stdout io.Writer, log *slog.Logger) error {
	profile, err := smpptest.ProfileNamed(o.Profile)
	if err != nil {
		return usageError{fmt.Errorf("%w; --list shows all", err)}
	}
	operator := smpptest.Config{
		OperatorConfig: smpptest.OperatorConfig{Seed: o.Seed, Behaviour: profile.Behaviour, Log: log},
		Address:        o.SMPP, SystemID: o.SystemID, Password: o.Password,
	}
	if o.Record != "" {
		file, err := os.Create(o.Record)
		if err != nil {
			return fmt.Errorf("record: %w", err)
		}
		defer file.Close()
		recorder := smpptest.NewRecorder(file)
		defer func() {
			if err := recorder.Close(); err != nil {
				log.Error("record", "error", err)
			}
		}()
		operator.Record = recorder
	}
	city := phones.City{Code: "*377*888#"}
	if o.City != "" {
		data, err := os.ReadFile(o.City)
		if err != nil {
			return fmt.Errorf("city: %w", err)
		}
		if err := json.Unmarshal(data, &city); err != nil {
			return fmt.Errorf("city: %s: %w", o.City, err)
		}
	}
	box, err := phones.StartBox(phones.BoxConfig{Operator: operator, Profile: o.USSD, ShortCode: "377"})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "SMPP %s, profile %s, seed %d\n", box.Addr(), o.Profile, o.Seed)
	var server *http.Server
	if o.Phones != "" {
		state, err := filepath.Abs(o.State)
		if err != nil {
			return fmt.Errorf("state: %w", err)
		}
		page, err := box.Open(phones.Config{
			City: city, Gateway: strings.TrimRight(o.Gateway, "/"), StateFile: state, Log: log, Now: time.Now,
		})
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", o.Phones)
		if err != nil {
			return fmt.Errorf("page of phones: %w", err)
		}
		server = &http.Server{Handler: page.Handler(), ReadHeaderTimeout: stopTimeout}
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				log.Error("page of phones", "error", err)
			}
		}()
		fmt.Fprintf(stdout, "page of phones http://%s\n", listener.Addr())
	}
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if server != nil {
		server.Close() // browsers keep their event streams open: nothing is lost by cutting them
	}
	return box.Close(stopping)
}
