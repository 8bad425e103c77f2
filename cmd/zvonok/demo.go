package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"zvonok/access/reader"
	"zvonok/cmd/zvonok-operator/phones"
	"zvonok/cmd/zvonok/city"
	"zvonok/gateway/email/emailtest"
	"zvonok/gateway/smpp/smpptest"
	"zvonok/ledger/pg"
	"zvonok/ledger/topup"
)

// The demo city.
const (
	demoPeople  = 900
	demoSchools = 4 // two schools, a college, a kindergarten
	demoSeed    = 377888
	demoHistory = 5 // days of passes before today
	demoMenu    = 14
	demoBalance = 500_00 // kopecks every child begins with
)

type demoCommand struct {
	HTTP      string `default:"127.0.0.1:8080" help:"Devices and everything else over HTTP (host:port, port 0 picks a free one)."`
	Admin     string `default:"127.0.0.1:9090" help:"Metrics, health, the job queue's page."`
	SMPP      string `name:"smpp" default:"127.0.0.1:2775" help:"Our SMPP server."`
	Phones    string `default:"127.0.0.1:8081" help:"The page of phones."`
	Mail      string `default:"127.0.0.1:0" help:"The mail catcher's SMTP."`
	DataDir   string `type:"path" default:"var" help:"Where the demo's data stays." placeholder:"DIR"`
	Fresh     bool   `help:"Start over: delete the demo's data first."`
	ReadyFile string `type:"path" help:"Write addresses and demo keys here, as JSON, once everything listens." placeholder:"FILE"`
}

// demoState is what a demo must remember over a restart: keys are stored hashed
// in the database, so their plain form is kept here.
type demoState struct {
	Keys map[string]string `json:"keys"` // device name to key
}

func (d *demoCommand) Run(ctx context.Context, c *console) error {
	config, err := LoadConfig(c.config, c.environ)
	if err != nil {
		return err
	}
	log := c.logger(config.Log)
	if d.Fresh {
		if err := pg.RemoveCluster(ctx, d.DataDir); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(d.DataDir, demoStateFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("start over: %w", err)
		}
	}
	demo := &demo{log: log, dir: d.DataDir, stops: stops{log: log}}
	if err := demo.start(ctx, d, config); err != nil {
		return errors.Join(err, drain(demo.stops.run))
	}
	if d.ReadyFile != "" {
		if err := demo.ready.write(d.ReadyFile); err != nil {
			return errors.Join(err, drain(demo.stops.run))
		}
	}
	demo.greet(c.out)
	<-ctx.Done()
	fmt.Fprintln(c.out, "Stopping; the data stays in", d.DataDir)
	return drain(demo.stops.run)
}

// demo is a running demo city.
type demo struct {
	log     *slog.Logger
	dir     string
	stops   stops
	ready   readyFile
	city    *city.City
	state   demoState
	account string // of some child, for the example of a bank
}

const demoStateFile = "demo.json"

// start brings up the world around the gateway (an operator, a mail relay), the
// gateway, the city, and the page of phones.
func (d *demo) start(ctx context.Context, command *demoCommand, config Config) error {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	// A port that is taken is said before a database and a city are made.
	listener, err := net.Listen("tcp", command.Phones)
	if err != nil {
		return fmt.Errorf("page of phones: %w; give another address with --phones, port 0 for a free one", err)
	}
	d.stops.add("page of phones' port", func(context.Context) error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) { // its server has closed it already
			return err
		}
		return nil
	})
	// The operator in a box and the gateway share a secret nobody has to know.
	password := rand.Text()[:8]
	box, err := phones.StartBox(phones.BoxConfig{
		Operator: smpptest.Config{
			OperatorConfig: smpptest.OperatorConfig{
				Seed: demoSeed, Behaviour: smpptest.Behaviour{ReceiptDelay: time.Second}, Log: d.log.With("part", "operator in a box"),
			},
			SystemID: "school", Password: password,
		},
		Profile: "plain-its", ShortCode: "377",
	})
	if err != nil {
		return err
	}
	d.stops.add("operator in a box", box.Close)
	catcher, err := emailtest.Listen(command.Mail)
	if err != nil {
		return fmt.Errorf("start the mail catcher: %w", err)
	}
	d.stops.add("mail catcher", func(context.Context) error { return catcher.Close() })

	operator := defaultOperator()
	operator.Name, operator.Address, operator.SystemID, operator.Password = "box", box.Addr(), "school", password
	operator.Binds, operator.Window, operator.Rate = 2, 100, 1000
	operator.Roles, operator.Source, operator.Cost = []string{"sms", "ussd"}, "SCHOOL", "2.50"
	config.DataDir, config.Operators = command.DataDir, []OperatorConfig{operator}
	// The page of phones is an aggregator, too: the same dialogue over HTTP.
	aggregator := phones.Aggregator{Link: "page", Secret: rand.Text()}
	config.USSD.HTTP = append(config.USSD.HTTP, USSDCallerConfig{
		Name: aggregator.Link, Convention: "africastalking", Secret: aggregator.Secret,
	})
	config.HTTP.Listen, config.Admin.Listen, config.SMPP.Listen = command.HTTP, command.Admin, command.SMPP
	config.Mail.Smarthost, config.Mail.TLS = catcher.Addr(), "none"
	app, err := StartApp(ctx, config, d.log)
	if err != nil {
		return err
	}
	d.stops.add("gateway", app.Stop)

	if err := d.makeCity(ctx, app); err != nil {
		return err
	}
	if err := d.makeKeys(ctx, app); err != nil {
		return err
	}
	if err := d.makePartners(ctx, app); err != nil {
		return err
	}
	page, err := box.Open(phones.Config{
		City: d.pageCity(config.USSD.Code), Gateway: "http://" + app.HTTP, StateFile: filepath.Join(d.dir, "devices.json"),
		Aggregator: aggregator, Log: d.log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", page.Handler())
	mux.Handle("/mail/", http.StripPrefix("/mail", catcher.Handler()))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("page of phones", "error", err)
		}
	}()
	// Browsers hold their event streams open: nothing is lost by cutting them.
	d.stops.add("page of phones", func(context.Context) error { return server.Close() })

	d.ready = readyFile{
		PID: os.Getpid(), HTTP: app.HTTP, Admin: app.Admin, SMPP: app.SMPP, Phones: listener.Addr().String(),
		Mail: catcher.Addr(), Database: app.url, Keys: map[string]readyKey{}, Partner: map[string]string{},
	}
	for dialect, name := range demoPartners {
		d.ready.Partner[string(dialect)] = name
	}
	for kind, name := range map[string]string{
		"door": deviceName(reader.Door, d.city.Organisations[0].Buildings[0]),
		"till": deviceName(reader.Till, d.city.Organisations[0].Buildings[0]),
	} {
		d.ready.Keys[kind] = readyKey{Building: d.city.Organisations[0].Buildings[0], Name: name, Key: d.state.Keys[name]}
	}
	return nil
}

// makeCity invents the city and, on the first start, imports it and gives it
// money and some days of history.
func (d *demo) makeCity(ctx context.Context, app *App) error {
	now := time.Now()
	var err error
	if d.city, err = city.New(city.Spec{
		People: demoPeople, Schools: demoSchools, Seed: demoSeed, Today: now, MenuFor: demoMenu,
	}); err != nil {
		return err
	}
	var people int
	if err := app.pool.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM ledger.person LIMIT 1) AS p`).Scan(&people); err != nil {
		return fmt.Errorf("look for the city: %w", err)
	}
	if people > 0 {
		return nil
	}
	d.log.Info("making the demo city", "people", demoPeople)
	folder, err := d.city.Folder()
	if err != nil {
		return err
	}
	if _, err := importFolder(ctx, &database{url: app.url, pool: app.pool}, folder, io.Discard); err != nil {
		return err
	}
	past := history{Days: demoHistory, Balance: demoBalance, Seed: demoSeed}
	return past.make(ctx, app.pool, app.jobs, now, func(string) {})
}

// deviceName names a demo device: those of the ready-file, for whoever plays a
// device by hand.
func deviceName(kind reader.DeviceKind, building string) string {
	return fmt.Sprintf("demo-%s-%s", kind, building)
}

// pageDevice names a device that the page of phones plays. It is one of its
// own: a device numbers its events, so two must not share a key.
func pageDevice(kind reader.DeviceKind, building string) string {
	if kind == reader.Door {
		return "Дверь " + building
	}
	return "Касса " + building
}

// makeKeys makes a door and a till for every building, once.
func (d *demo) makeKeys(ctx context.Context, app *App) error {
	path := filepath.Join(d.dir, demoStateFile)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &d.state); err != nil {
			return fmt.Errorf("read the demo's keys from %s: %w; --fresh starts over", path, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("read the demo's keys: %w", err)
	}
	if d.state.Keys == nil {
		d.state.Keys = map[string]string{}
	}
	made := false
	for i, organisation := range d.city.Organisations {
		for j, building := range organisation.Buildings {
			for _, kind := range []reader.DeviceKind{reader.Door, reader.Till} {
				names := []string{pageDevice(kind, building)}
				if i == 0 && j == 0 {
					names = append(names, deviceName(kind, building))
				}
				for _, name := range names {
					if d.state.Keys[name] != "" {
						continue
					}
					_, key, err := reader.AddDevice(ctx, app.pool, reader.NewDevice{Kind: kind, Building: building, Name: name}, time.Now())
					if err != nil {
						return err
					}
					d.state.Keys[name], made = key.Reveal(), true
				}
			}
		}
	}
	if !made {
		return nil
	}
	if data, err = json.MarshalIndent(d.state, "", "  "); err != nil {
		return fmt.Errorf("keep the demo's keys: %w", err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("keep the demo's keys: %w", err)
	}
	return nil
}

// The demo's banks, which call from this machine.
var demoPartners = map[topup.Dialect]string{topup.OSMP: "mkb", topup.Sber: "sber"}

// makePartners lets two banks take top-ups, once.
func (d *demo) makePartners(ctx context.Context, app *App) error {
	partners, err := topup.ListPartners(ctx, app.pool)
	if err != nil {
		return err
	}
	if err := app.pool.QueryRow(ctx, `
		SELECT number FROM ledger.account WHERE kind = 'wallet' ORDER BY id LIMIT 1`).Scan(&d.account); err != nil {
		return fmt.Errorf("find an account: %w", err)
	}
	for dialect, name := range demoPartners {
		if slices.ContainsFunc(partners, func(p topup.Partner) bool { return p.Name == name }) {
			continue
		}
		if _, err := topup.AddPartner(ctx, app.pool, topup.NewPartner{
			Name: name, Dialect: dialect, PaymentCodes: []string{"916", "917"}, Show: topup.Masked,
			Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			Min:   10_00, Max: 15_000_00,
		}, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// pageCity is the city as the page of phones shows it.
func (d *demo) pageCity(code string) phones.City {
	page := phones.City{Code: code}
	for i, organisation := range d.city.Organisations {
		school := phones.School{Name: organisation.Name, Kind: organisation.Kind}
		for _, building := range organisation.Buildings {
			door, till := pageDevice(reader.Door, building), pageDevice(reader.Till, building)
			school.Doors = append(school.Doors, phones.Device{Name: door, Key: d.state.Keys[door]})
			school.Tills = append(school.Tills, phones.Device{Name: till, Key: d.state.Keys[till]})
		}
		for _, p := range d.city.People {
			if p.Organisation != i || p.Kind != "pupil" {
				continue
			}
			child := phones.Child{Name: p.Given + " " + p.Family, Group: p.Group, Card: p.Card}
			for _, g := range p.Guardians {
				if g.Role == "companion" {
					child.Companions = append(child.Companions, g.Card)
					continue
				}
				child.Phones = append(child.Phones, g.Phone)
			}
			school.Children = append(school.Children, child)
		}
		page.Schools = append(page.Schools, school)
	}
	seen := map[string]bool{}
	for _, p := range d.city.People {
		for _, g := range p.Guardians {
			if !seen[g.Phone] {
				seen[g.Phone] = true
				page.Phones = append(page.Phones, phones.Phone{Number: g.Phone, Owner: g.Given + " " + g.Family})
			}
		}
	}
	return page
}

// greet says where everything is.
func (d *demo) greet(w io.Writer) {
	fmt.Fprintf(w, `
The demo city is up.

  page of phones   http://%[1]s/        tap a card, the SMS is on the phone; dial *377*888#
  mail catcher     http://%[1]s/mail/
  HTTP interfaces  http://%[2]s/api/docs   of devices, schools and parents; a parent's code comes to the phone on the page
  administrator    http://%[3]s/metrics, /readyz, /jobs/
  SMPP server      %[4]s

A demo bank:  curl "http://%[2]s/pay/osmp/mkb?command=check&txn_id=1&sum=0.00&account=%[7]s"
A demo door:  curl http://%[2]s/api/v1/events -H "Authorization: Bearer %[5]s" ...
Ctrl-C stops everything; the data stays in %[6]s.

`, d.ready.Phones, d.ready.HTTP, d.ready.Admin, d.ready.SMPP, d.ready.Keys["door"].Key, d.dir, d.account)
}
