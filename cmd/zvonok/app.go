package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access/door"
	schooldesk "zvonok/access/office"
	"zvonok/access/reader"
	"zvonok/access/reader/apidoc"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/lease"
	"zvonok/gateway/notice"
	"zvonok/gateway/parent"
	"zvonok/gateway/push"
	"zvonok/gateway/routing"
	"zvonok/gateway/smpp"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/topup"
	"zvonok/templates"
	"zvonok/ussd"
	"zvonok/ussd/menu"
)

// Limits of the process.
const (
	startTimeout = 2 * time.Minute // of the database and its migrations, a recovery included

	jobTimeout     = 30 * time.Second      // of jobs that do not say otherwise
	rescueAfter    = 2 * time.Minute       // River's own rescue, for jobs of a process that hangs; dead ones are found in seconds
	keepCompleted  = 15 * time.Minute      // done jobs are history soon: at thousands a second a day of them would be millions
	fetchCooldown  = 25 * time.Millisecond // a quiet queue's first job is fetched at once; a busy one's come in larger lots
	fetchPoll      = time.Second
	noticeWorkers  = 32 // jobs that may be gathered into one transaction
	headerTimeout  = 10 * time.Second
	requestTimeout = 60 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeader      = 16 << 10
)

// App is a running gateway.
type App struct {
	log      *slog.Logger
	stops    stops
	registry *prometheus.Registry
	url      string
	pool     *pgxpool.Pool
	jobs     *river.Client[pgx.Tx]
	exchange *carrier.Exchange
	ready    *readiness

	HTTP, Admin, SMPP string // where it listens
}

// StartApp brings up everything, in the order in which the parts need each
// other. It is one straight function on purpose: cut into helpers, each would
// need most of what stands before it. When a part fails, what was started
// before it is stopped.
func StartApp(ctx context.Context, config Config, log *slog.Logger) (_ *App, err error) {
	a := &App{log: log, registry: prometheus.NewRegistry(), ready: &readiness{}}
	a.stops.log = log
	defer func() {
		if err != nil {
			stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
			defer cancel()
			_ = a.stops.run(stopping) // said in the log; the first error is the one to report
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	now := time.Now
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector())

	// The database.
	a.url = config.Database.URL
	if a.url == "" {
		dir, err := config.dataDir()
		if err != nil {
			return nil, err
		}
		cluster, err := pg.StartCluster(ctx, pg.ClusterConfig{DataDir: dir, Log: log.With("part", "postgresql")})
		if err != nil {
			return nil, err
		}
		a.stops.add("private PostgreSQL", cluster.Stop)
		a.url = cluster.URL()
	}
	if _, err := pg.Migrate(ctx, a.url); err != nil {
		return nil, err
	}
	name := processName()
	pool, err := pg.Open(ctx, pg.Config{URL: a.url, MaxConns: int32(config.Database.MaxConns), AppName: name, Role: pg.AppRole})
	if err != nil {
		return nil, err
	}
	a.pool = pool
	a.stops.add("database pool", func(context.Context) error { pool.Close(); return nil })
	// River has a pool of its own: its fetches must not wait behind requests.
	queuePool, err := pg.Open(ctx, pg.Config{
		URL: a.url, MaxConns: int32(config.Database.QueueMaxConns), AppName: name + " queue", Role: pg.AppRole,
	})
	if err != nil {
		return nil, err
	}
	a.stops.add("queue pool", func(context.Context) error { queuePool.Close(); return nil })
	pg.NewMetrics(a.registry, map[string]*pgxpool.Pool{"main": pool, "queue": queuePool})
	if _, err := pg.EnsureMonths(ctx, pool, now()); err != nil {
		return nil, err
	}
	leases, err := lease.Open(ctx, lease.Config{URL: a.url, Process: name, Log: log.With("part", "leases"), Metrics: a.registry})
	if err != nil {
		return nil, err
	}
	a.stops.add("leases", func(context.Context) error { leases.Close(); return nil })

	// The jobs: one client inserts, the other works, because the workers need
	// the parts that insert.
	if a.jobs, err = insertClient(pool); err != nil {
		return nil, err
	}

	// The operators.
	operators, err := operatorConfigs(config.Operators)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range operators {
		names = append(names, o.Name)
	}
	deliveryMetrics := delivery.NewMetrics(a.registry, append([]string{"mail", "push"}, names...))
	var (
		sender   *delivery.Sender
		receipts *delivery.Receipts
		dialogue *ussd.Server
		replies  *notice.Replier
		memory   *routing.Memory
	)
	a.exchange, err = carrier.New(carrier.Config{
		Operators:   operators,
		Leases:      leases,
		Receipts:    func(ctx context.Context, batch []carrier.Receipt) error { return receipts.Store(ctx, batch) },
		Messages:    func(ctx context.Context, batch []carrier.MO) error { return replies.Take(ctx, batch) },
		Dial:        func(d carrier.Dial) { dialogue.Dial(d) },
		LinkChanged: func(operator string, up bool) { sender.LinkChanged(operator, up) },
		Late:        func(r carrier.Result) { sender.Late(r) },
		Ported:      func(p carrier.Ported) { memory.Learn(p) },
		Alarm: func(alarm carrier.Alarm) {
			log.Warn("operator", "operator", alarm.Operator, "alarm", alarm.Text)
		},
		Log: log.With("part", "carrier"), Metrics: a.registry, Now: now,
	})
	if err != nil {
		return nil, err
	}
	texts, err := config.texts()
	if err != nil {
		return nil, err
	}
	memory = routing.New(routing.Config{Pool: pool, Exchange: a.exchange, Log: log.With("part", "routing"), Now: now})
	if err := memory.Sync(ctx); err != nil {
		return nil, err
	}
	desk := delivery.NewDesk(a.jobs, a.exchange.Route)
	desk.RefusedBulk = delivery.RefusedBulk{}
	for _, o := range config.Operators {
		desk.RefusedBulk[o.Name] = o.RefusedBulk
	}
	receipts = delivery.NewReceipts(delivery.ReceiptsConfig{
		Pool: pool, Desk: desk, Metrics: deliveryMetrics, Now: now, Learn: a.exchange.Learn,
		Delivered: func(operator, address string, within bool) { memory.Delivered(operator, address, within) },
	})
	sender = delivery.NewSender(delivery.SenderConfig{
		Pool: pool, Desk: desk, Receipts: receipts, Exchange: a.exchange, Operators: names, Process: name,
		Log: log.With("part", "delivery"), Metrics: deliveryMetrics, Now: now,
	})
	dir, err := config.dataDir()
	if err != nil {
		return nil, err
	}
	linkKey, err := keptKey(filepath.Join(dir, "links.key"))
	if err != nil {
		return nil, err
	}
	unsubscribe, err := notice.NewUnsubscribe(notice.UnsubscribeConfig{
		Pool: pool, Base: config.HTTP.PublicURL, Key: linkKey, Log: log.With("part", "notice"), Now: now,
	})
	if err != nil {
		return nil, err
	}
	teller := notice.NewTeller(notice.Config{
		Pool: pool, Desk: desk, Log: log.With("part", "notice"), Metrics: notice.NewMetrics(a.registry), Now: now,
		SMSPerDay: config.Notice.SMSPerDay, Texts: texts.Texts,
		Links: func(address string) templates.Links {
			return templates.Links{Settings: config.HTTP.page("/settings"), Unsubscribe: unsubscribe.URL(address)}
		},
	})
	replies = notice.NewReplier(pool, desk, texts.Texts, now)

	// The dialogue.
	links, err := ussdLinks(config)
	if err != nil {
		return nil, err
	}
	tree := menu.New(menu.Config{
		Pool: pool, Send: replies.Send, Code: config.USSD.Code, Texts: texts.Texts, Now: now,
		Log: log.With("part", "ussd"), Metrics: menu.NewMetrics(a.registry),
	})
	dialogue, err = ussd.New(ussd.Config{
		Links: links, Codes: []string{config.USSD.Code}, Show: tree.Show, Answer: a.exchange.Answer,
		Continue: replies.Send, Now: now, Log: log.With("part", "ussd"), Metrics: ussd.NewMetrics(a.registry),
	})
	if err != nil {
		return nil, err
	}

	// The mail.
	mail, err := newMail(config, log.With("part", "mail"), a.registry)
	if err != nil {
		return nil, err
	}
	a.stops.add("mail connections", func(context.Context) error { mail.sender.Close(); return nil })
	mailer := delivery.NewMailer(delivery.MailerConfig{
		Pool: pool, Desk: desk, Sender: mail.sender, Domain: mail.domain, Process: name,
		Unsubscribe: unsubscribe.URL,
		Log:         log.With("part", "mail"), Metrics: deliveryMetrics, Now: now,
	})

	// The notifications in browsers.
	browsers, err := newPush(config, log.With("part", "push"), a.registry)
	if err != nil {
		return nil, err
	}
	a.stops.add("push connections", func(context.Context) error { browsers.Close(); return nil })
	pusher, err := delivery.NewPusher(delivery.PusherConfig{
		Pool: pool, Desk: desk, Sender: browsers, Process: name, Key: linkKey,
		Log: log.With("part", "push"), Metrics: deliveryMetrics, Now: now,
	})
	if err != nil {
		return nil, err
	}
	a.stops.add("proofs of push delivery", func(context.Context) error { pusher.Close(); return nil })

	// The parents.
	book := ledger.NewBook(a.jobs)
	book.Metrics = ledger.NewMetrics(a.registry)
	canteen := meal.NewCanteen(book, a.jobs)
	canteen.Metrics = meal.NewMetrics(a.registry)
	proxies, err := networks("http.proxies", config.HTTP.Proxies)
	if err != nil {
		return nil, err
	}
	parents, err := parent.New(parent.Config{
		Pool: pool, River: a.jobs, Desk: desk, Book: book, Canteen: canteen, Push: browsers, Texts: texts.Texts,
		PublicURL: config.HTTP.PublicURL, Proxies: proxies, Log: log.With("part", "parents"), Metrics: parent.NewMetrics(a.registry), Now: now,
	})
	if err != nil {
		return nil, err
	}

	// The workers.
	workers := river.NewWorkers()
	sender.Register(workers)
	mailer.Register(workers)
	pusher.Register(workers)
	teller.Register(workers)
	parents.RegisterWorkers(workers)
	queues := sender.Queues()
	maps.Copy(queues, mailer.Queues())
	maps.Copy(queues, pusher.Queues())
	maps.Copy(queues, parent.Queues())
	queues[river.QueueDefault] = river.QueueConfig{MaxWorkers: noticeWorkers}
	client, err := river.NewClient(riverpgxv5.New(queuePool), &river.Config{
		ID: name, Schema: pg.RiverSchema, Queues: queues, Workers: workers, Logger: quiet(log.With("part", "queue")),
		JobTimeout: jobTimeout, RescueStuckJobsAfter: rescueAfter, CompletedJobRetentionPeriod: keepCompleted,
		FetchCooldown: fetchCooldown, FetchPollInterval: fetchPoll, SoftStopTimeout: drainTime,
		PeriodicJobs: nil,
	})
	if err != nil {
		return nil, fmt.Errorf("set up the job queue: %w", err)
	}
	sender.Follow(client)

	// From here on things happen.
	sender.Start()
	a.stops.add("outcomes", func(context.Context) error { sender.Stop(); return nil })
	a.exchange.Start()
	a.stops.add("operators", a.exchange.Stop)
	a.stops.add("notices", func(context.Context) error { teller.Close(); return nil })
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("start the job queue: %w", err)
	}
	a.stops.add("job queue", func(ctx context.Context) error {
		sender.Drain()
		return client.Stop(ctx)
	})
	background := func(name string, run func(context.Context)) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { run(ctx); close(done) }()
		a.stops.add(name, func(ctx context.Context) error {
			cancel()
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	rescue := &rescuer{pool: pool, river: a.jobs, log: log, name: name, now: now}
	background("rescuer", rescue.run)
	background("routes", memory.Run)
	background("links", func(ctx context.Context) {
		every(ctx, linksInterval, log, "look after links", func(ctx context.Context) error {
			for _, operator := range names {
				leases.Linked(operator, a.exchange.Ready(operator))
			}
			return sender.Reroute(ctx, leases.AnyLinked)
		})
	})
	background("backlogs", func(ctx context.Context) { every(ctx, sweepInterval, log, "watch what waits", sender.Watch) })
	background("receipts sweep", func(ctx context.Context) { every(ctx, sweepInterval, log, "sweep receipts", receipts.Sweep) })
	background("months", func(ctx context.Context) {
		every(ctx, monthsInterval, log, "make next months", func(ctx context.Context) error {
			_, err := pg.EnsureMonths(ctx, pool, now())
			return err
		})
	})
	background("digests", func(ctx context.Context) { every(ctx, digestInterval, log, "make digests", teller.RunDigests) })
	background("texts", func(ctx context.Context) { watchTexts(ctx, texts, log.With("part", "notice"), a.registry) })
	background("dialogue", dialogue.Run)
	background("view log", tree.Run)

	// Our SMPP server, for operators that bind to us.
	smppListener, err := listen(config.SMPP.Listen, "smpp.listen")
	if err != nil {
		return nil, err
	}
	serverConfig := a.exchange.ServerConfig()
	serverConfig.SystemID, serverConfig.Log = "zvonok", log.With("part", "smpp")
	if serverConfig.TLS, err = config.SMPP.serverTLS(); err != nil {
		return nil, err
	}
	server := smpp.NewServer(serverConfig)
	a.SMPP = smppListener.Addr().String()
	go a.served("SMPP server", func() error { return server.Serve(smppListener) })
	a.stops.add("SMPP server", server.Shutdown)

	if config.Mail.BounceListen != "" {
		listener, err := listen(config.Mail.BounceListen, "mail.bounce_listen")
		if err != nil {
			return nil, err
		}
		bounces := mail.intake(mailer.Bounced)
		go a.served("bounce intake", func() error { return bounces.Serve(listener) })
		a.stops.add("bounce intake", bounces.Shutdown)
	}

	// Devices and everything else that comes over HTTP.
	recorder := door.NewRecorder(a.jobs)
	background("retention", func(ctx context.Context) {
		every(ctx, retentionInterval, log, "destroy what is past its time", func(ctx context.Context) error {
			return retainDaily(ctx, pool, log, now())
		})
	})
	background("absences", func(ctx context.Context) {
		every(ctx, absenceInterval, log, "look for absences", func(ctx context.Context) error {
			made, err := recorder.CheckAbsence(ctx, pool, now())
			for _, batch := range made {
				if batch.State == door.Held {
					log.Warn("the news of absences waits for a person (zvonok absence list)", "batch", batch.ID,
						"organisation", batch.Code, "cause", batch.Cause, "arrived", batch.Arrived, "usual", batch.Usual)
				}
			}
			return err
		})
	})
	background("folds", func(ctx context.Context) {
		every(ctx, foldInterval, log, "fold the system accounts", func(ctx context.Context) error {
			_, err := book.Fold(ctx, pool)
			return err
		})
	})
	background("nights", func(ctx context.Context) {
		nightly(ctx, now, book.Zone, log, func(ctx context.Context) error { return closeBooks(ctx, pool, book, canteen, now(), log) })
	})
	intake := reader.NewIntake(reader.Config{
		Pool: pool, River: a.jobs, Recorder: recorder, Canteen: canteen,
		Log: log.With("part", "reader"), Metrics: reader.NewMetrics(a.registry), Now: now,
	})
	a.stops.add("intake", func(context.Context) error { intake.Close(); return nil }) // after its listener
	mux := http.NewServeMux()
	api := apidoc.New(mux, version)
	intake.Register(api)
	sites, err := config.sigurSites()
	if err != nil {
		return nil, err
	}
	intake.Sigur(sites).Register(mux)
	for _, drop := range config.Drops {
		folder := reader.DropFolder{Dir: drop.Dir, Device: reader.DeviceID(drop.Device)}
		background("drop folder "+drop.Dir, func(ctx context.Context) {
			every(ctx, dropInterval, log, "take files of "+drop.Dir, func(ctx context.Context) error { return intake.Sweep(ctx, folder) })
		})
	}
	schooldesk.New(schooldesk.Config{Pool: pool, Recorder: recorder, Log: log.With("part", "office"), Now: now}).Register(api)
	parents.Register(api)
	a.stops.add("parents", func(context.Context) error { parents.Close(); return nil }) // after their listener
	banks := topup.NewEndpoints(topup.Config{
		Pool: pool, Book: book, TrustedProxies: proxies, Log: log.With("part", "topup"), Metrics: topup.NewMetrics(a.registry), Now: now,
	})
	a.stops.add("banks", func(context.Context) error { banks.Close(); return nil })
	mux.Handle("/pay/", banks.Handler())
	mux.Handle("/api/v1/topup-points", banks.DirectoryHandler())
	mux.Handle(notice.UnsubscribePath, unsubscribe)
	mux.Handle(push.AckPath, pusher)
	mux.Handle("/ussd/http/", dialogue.Handler())
	a.HTTP, err = a.serve("HTTP", config.HTTP.Listen, "http.listen", secured(mux))
	if err != nil {
		return nil, err
	}
	admin, err := a.adminHandler(client)
	if err != nil {
		return nil, err
	}
	a.Admin, err = a.serve("admin", config.Admin.Listen, "admin.listen", admin)
	if err != nil {
		return nil, err
	}
	a.ready.set(nil)
	log.Info("zvonok is up", "version", version, "http", a.HTTP, "admin", a.Admin, "smpp", a.SMPP, "operators", len(operators))
	return a, nil
}

// Stop drains: readiness turns false, nothing new is taken, what is in flight is
// finished within ctx.
func (a *App) Stop(ctx context.Context) error {
	a.ready.set(errors.New("draining"))
	return a.stops.run(ctx)
}

// Periods of what runs beside.
const (
	sweepInterval   = 5 * time.Second
	linksInterval   = time.Second
	foldInterval    = 5 * time.Second
	digestInterval  = time.Minute
	absenceInterval = time.Minute
	dropInterval    = 5 * time.Second

	retentionInterval = time.Hour // how often is asked whether the day's run is due
	monthsInterval    = 12 * time.Hour
)

// every runs work at once and then again and again until ctx ends.
func every(ctx context.Context, period time.Duration, log *slog.Logger, what string, work func(context.Context) error) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			log.Warn(what, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// nightHour is when the books are closed: late enough for the last upload of a
// day, early enough to be done before the first child.
const (
	nightHour  = 3
	nightRetry = 10 * time.Minute
)

// nightly runs work each night at nightHour in the zone until ctx ends. What
// fails is tried again; a night that was missed is made good by the next one.
func nightly(ctx context.Context, now func() time.Time, zone *time.Location, log *slog.Logger, work func(context.Context) error) {
	for {
		t := now().In(zone)
		next := time.Date(t.Year(), t.Month(), t.Day(), nightHour, 0, 0, 0, zone)
		if !next.After(t) {
			next = next.AddDate(0, 0, 1)
		}
		wait := next.Sub(t)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			err := work(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			log.Error("close the books for the night", "error", err)
			wait = nightRetry
		}
	}
}

// closeBooks is what the books need each night: orders that will not be served
// are cancelled, the days that are over are closed and sealed, and everything
// is verified. In a fleet whoever comes second finds little to do.
func closeBooks(
	ctx context.Context, pool *pgxpool.Pool, book *ledger.Book, canteen *meal.Canteen, now time.Time, log *slog.Logger,
) error {
	today := now.In(book.Zone)
	yesterday := time.Date(today.Year(), today.Month(), today.Day()-1, 0, 0, 0, 0, time.UTC)
	days, err := ledger.CloseDays(ctx, pool, yesterday, "zvonok")
	if errors.Is(err, ledger.ErrClosing) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, day := range days {
		log.Info("accounting day closed", "day", day.Day.Format(time.DateOnly), "postings", day.Postings, "late", day.Late)
	}
	if err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := canteen.LapseOrders(ctx, tx, yesterday.AddDate(0, 0, 1))
		return err
	}); err != nil {
		return err
	}
	report, err := ledger.Verify(ctx, pool, topup.Checks()...)
	if err != nil {
		return err
	}
	book.Metrics.SetVerified(report)
	for _, v := range report.Violations {
		log.Error("the books are wrong: run zvonok ledger verify", "violation", v.String())
	}
	return nil
}

// serve listens and serves HTTP until stopped.
func (a *App) serve(name, address, key string, handler http.Handler) (string, error) {
	listener, err := listen(address, key)
	if err != nil {
		return "", err
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	go a.served(name, func() error { return server.Serve(listener) })
	a.stops.add(name+" listener", server.Shutdown)
	return listener.Addr().String(), nil
}

// served runs a server; one that ends by itself makes the process unready.
func (a *App) served(name string, serve func() error) {
	err := serve()
	if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, smpp.ErrServerClosed) {
		a.log.Error("server ended", "server", name, "error", err)
		a.ready.set(fmt.Errorf("%s: %w", name, err))
	}
}

func listen(address, key string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s = %q: %w; give another port, or port 0 for a free one", key, address, err)
	}
	return listener, nil
}

// quiet drops River's informative lines: a line per second about itself says
// nothing to an administrator.
func quiet(log *slog.Logger) *slog.Logger {
	return slog.New(levelFilter{log.Handler(), slog.LevelWarn})
}

type levelFilter struct {
	slog.Handler
	least slog.Level
}

func (f levelFilter) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= f.least && f.Handler.Enabled(ctx, level)
}

func (f levelFilter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelFilter{f.Handler.WithAttrs(attrs), f.least}
}

func (f levelFilter) WithGroup(name string) slog.Handler {
	return levelFilter{f.Handler.WithGroup(name), f.least}
}

// operatorConfigs turns settings into the carrier's terms.
func operatorConfigs(settings []OperatorConfig) ([]carrier.OperatorConfig, error) {
	var configs []carrier.OperatorConfig
	for _, o := range settings {
		cost, err := money.Parse(o.Cost)
		if err != nil {
			return nil, fmt.Errorf("operator %s: cost: %w", o.Name, err)
		}
		c := carrier.OperatorConfig{
			Name: o.Name, Mode: carrier.Mode(o.Mode), Address: o.Address, SystemID: o.SystemID, Password: o.Password,
			SystemType: o.SystemType, Binds: o.Binds, Pair: o.BindType == "pair", Window: o.Window, Rate: float64(o.Rate),
			Source: o.Source, Prefixes: o.Prefixes, Weight: o.Weight, Cost: int64(cost),
			MessageID: carrier.IDMode(o.MessageID), Concatenation: carrier.Method(o.Concat),
		}
		for _, role := range o.Roles {
			c.Roles = append(c.Roles, carrier.Role(role))
		}
		for _, network := range o.Addresses {
			prefix, err := netip.ParsePrefix(network)
			if err != nil {
				return nil, fmt.Errorf("operator %s: addresses: %w", o.Name, err)
			}
			c.Networks = append(c.Networks, prefix)
		}
		if o.TLS {
			if c.TLS, err = clientTLS(o); err != nil {
				return nil, fmt.Errorf("operator %s: %w", o.Name, err)
			}
		}
		configs = append(configs, c)
	}
	return configs, nil
}

// clientTLS checks the operator's certificate by its name or the address's.
func clientTLS(o OperatorConfig) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if o.TLSName != "" {
		c.ServerName = o.TLSName
	}
	if o.TLSCAFile != "" {
		data, err := os.ReadFile(o.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("tls_ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("tls_ca_file: %s holds no certificate in PEM form", o.TLSCAFile)
		}
	}
	return c, nil
}

// ussdLinks are the operators that may say whose phone is dialling.
func ussdLinks(config Config) ([]ussd.Link, error) {
	profiles, err := ussd.NewProfiles(config.USSD.Profiles)
	if err != nil {
		return nil, fmt.Errorf("ussd.profile: %w", err)
	}
	var links []ussd.Link
	for _, o := range config.Operators {
		if !slices.Contains(o.Roles, "ussd") {
			continue
		}
		profile, err := profiles.Get(o.USSDProfile)
		if err != nil {
			return nil, fmt.Errorf("operator %s: ussd_profile: %w", o.Name, err)
		}
		timeout, err := parseUSSDTimeout("ussd_timeout", o.USSDTimeout)
		if err != nil {
			return nil, fmt.Errorf("operator %s: %w", o.Name, err)
		}
		links = append(links, ussd.Link{
			Name: o.Name, Profile: profile, TTL: timeout, MaxOpen: o.USSDMaxOpen, Latin: o.USSDLatin,
			AnswerAndClose: o.USSDClose, FollowBySMS: o.USSDContinue,
		})
	}
	for _, h := range config.USSD.HTTP {
		caller := &ussd.Caller{Convention: h.Convention, Secret: h.Secret, Region: h.Region}
		for _, network := range h.Addresses {
			prefix, err := netip.ParsePrefix(network)
			if err != nil {
				return nil, fmt.Errorf("ussd.http %s: addresses: %q is not a network such as 192.0.2.0/24", h.Name, network)
			}
			caller.From = append(caller.From, prefix)
		}
		if err := caller.Check(); err != nil {
			return nil, fmt.Errorf("ussd.http %s: %w", h.Name, err)
		}
		timeout, err := parseUSSDTimeout("timeout", h.Timeout)
		if err != nil {
			return nil, fmt.Errorf("ussd.http %s: %w", h.Name, err)
		}
		links = append(links, ussd.Link{
			Name: h.Name, HTTP: caller, TTL: timeout, Latin: h.Latin, AnswerAndClose: h.Close, FollowBySMS: h.Continue,
		})
	}
	return links, nil
}

// networks reads a list of networks such as 192.0.2.0/24.
func networks(key string, texts []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a network such as 192.0.2.0/24", key, text)
		}
		list = append(list, network)
	}
	return list, nil
}
