package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"zvonok/access"
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
	reader   *pg.Reader
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
	a.reader, err = pg.OpenReader(ctx, pg.ReaderConfig{
		Primary: pool, MaxLag: config.Database.replicaMaxLag(), Log: log.With("part", "replica"), Metrics: a.registry,
		Replica: pg.Config{
			URL: config.Database.ReplicaURL, MaxConns: int32(config.Database.MaxConns), AppName: name + " reads", Role: pg.AppRole,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("database.replica_url: %w", err)
	}
	a.stops.add("replica", func(context.Context) error { a.reader.Close(); return nil })
	pools := map[string]*pgxpool.Pool{"main": pool, "queue": queuePool}
	if replica := a.reader.Replica(); replica != nil {
		pools["replica"] = replica
	}
	pg.NewMetrics(a.registry, pools)
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
		giver    *delivery.Giver
	)
	a.exchange, err = carrier.New(carrier.Config{
		Operators: operators,
		Leases:    leases,
		Receipts:  func(ctx context.Context, batch []carrier.Receipt) error { return receipts.Store(ctx, batch) },
		Messages: func(ctx context.Context, batch []carrier.MO) error {
			err := replies.Take(ctx, batch)
			for _, text := range batch {
				if err == nil && len(text.Owed) > 0 {
					giver.Nudge(text.Operator)
				}
			}
			return err
		},
		StoreParts: func(ctx context.Context, parts []carrier.TextPart) ([]carrier.TextPart, error) {
			whole, err := delivery.StoreParts(ctx, pool, parts)
			for _, part := range parts {
				if err == nil && len(part.Owed) > 0 {
					giver.Nudge(part.Operator)
				}
			}
			return whole, err
		},
		OverdueParts: func(ctx context.Context, before time.Time) ([]carrier.TextPart, error) {
			return delivery.OverdueParts(ctx, pool, before)
		},
		Owe: func(ctx context.Context, batch []carrier.Owed) error {
			err := delivery.Owe(ctx, pool, batch)
			for _, r := range batch {
				giver.Nudge(r.Operator)
			}
			return err
		},
		Dial:        func(d carrier.Dial) { dialogue.Dial(d) },
		LinkChanged: func(operator string, up bool) { sender.LinkChanged(operator, up); giver.Nudge(operator) },
		Late:        func(r carrier.Result) { sender.Late(r) },
		Unstored:    func(operator string) int { return sender.Unstored(operator) },
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
	desk.SMSPerDay = config.Notice.SMSPerDay
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
	var bound []string
	for _, o := range operators {
		if o.Mode == carrier.Server {
			bound = append(bound, o.Name)
		}
	}
	giver = delivery.NewGiver(delivery.GiverConfig{
		Pool: pool, Exchange: a.exchange, Operators: bound, Log: log.With("part", "delivery"), Metrics: deliveryMetrics, Now: now,
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
		Pool: pool, River: a.jobs, Desk: desk, Log: log.With("part", "notice"), Metrics: notice.NewMetrics(a.registry), Now: now,
		Texts: texts.Texts,
		Links: func(address string) templates.Links {
			return templates.Links{Settings: config.HTTP.page("/settings"), Unsubscribe: unsubscribe.URL(address)}
		},
	})
	replies = notice.NewReplier(pool, desk, texts.Texts, now)
	replies.Silence = config.USSD.silence()

	// The dialogue.
	links, err := ussdLinks(config)
	if err != nil {
		return nil, err
	}
	tree, err := menu.New(menu.Config{
		Pool: pool, Read: a.reader, Send: replies.Send, Code: config.USSD.Code, Texts: texts.Texts, Now: now,
		Log: log.With("part", "ussd"), Metrics: menu.NewMetrics(a.registry),
		Silence: config.USSD.silence(), Remember: config.USSD.remember(), Journal: filepath.Join(dir, "ussd-views.journal"),
	})
	if err != nil {
		return nil, err
	}
	proxies, err := networks("http.proxies", config.HTTP.Proxies)
	if err != nil {
		return nil, err
	}
	simKey, err := keptKey(filepath.Join(dir, "sim.key"))
	if err != nil {
		return nil, err
	}
	dialogue, err = ussd.New(ussd.Config{
		SIM:   access.SIMHash(simKey),
		Links: links, Proxies: proxies, Codes: []string{config.USSD.Code}, Show: tree.Show, Answer: a.exchange.Answer,
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
	canteen.CutOff, canteen.OfflineCap = config.Meals.cutOff(), config.Meals.offlineCap()
	canteen.Metrics = meal.NewMetrics(a.registry)
	recorder := door.NewRecorder(a.jobs)
	intake := reader.NewIntake(reader.Config{
		Pool: pool, River: a.jobs, Recorder: recorder, Canteen: canteen, Proxies: proxies,
		Log: log.With("part", "reader"), Metrics: reader.NewMetrics(a.registry), Now: now,
	})
	a.stops.add("intake", func(context.Context) error { intake.Close(); return nil }) // after its listener
	parents, err := parent.New(parent.Config{
		Pool: pool, Read: a.reader, River: a.jobs, Desk: desk, Book: book, Canteen: canteen, Push: browsers, Intake: intake, Texts: texts.Texts,
		Silence:   config.USSD.silence(),
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
	giver.Start()
	a.stops.add("receipts to gateways", func(context.Context) error { giver.Stop(); return nil })
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
	background("replica's lag", a.reader.Run)
	rescue := &rescuer{pool: pool, river: a.jobs, log: log, name: name, now: now}
	background("rescuer", rescue.run)
	background("routes", memory.Run)
	background("links", func(ctx context.Context) {
		every(ctx, linksInterval, log, "look after links", func(ctx context.Context) error {
			for _, operator := range names {
				leases.Linked(operator, a.exchange.Ready(operator))
			}
			return errors.Join(sender.Reroute(ctx, leases.AnyLinked), sender.Share(ctx, leases.Shared))
		})
	})
	background("backlogs", func(ctx context.Context) {
		every(ctx, sweepInterval, log, "watch what waits", sender.Watch)
	})
	background("receipts owed", func(ctx context.Context) {
		every(ctx, sweepInterval, log, "watch the receipts owed", giver.Watch)
	})
	background("secrets", func(ctx context.Context) {
		every(ctx, sweepInterval, log, "destroy the texts of codes", func(ctx context.Context) error {
			return delivery.EraseSecrets(ctx, pool, now())
		})
	})
	background("receipts sweep", func(ctx context.Context) { every(ctx, sweepInterval, log, "sweep receipts", receipts.Sweep) })
	background("doubts", func(ctx context.Context) {
		every(ctx, sweepInterval, log, "close messages without a proof", receipts.SweepDoubts)
	})
	background("months", func(ctx context.Context) {
		every(ctx, monthsInterval, log, "make next months", func(ctx context.Context) error {
			_, err := pg.EnsureMonths(ctx, pool, now())
			return err
		})
	})
	background("digests", func(ctx context.Context) { every(ctx, digestInterval, log, "make digests", teller.RunDigests) })
	// Before anything can know that we run: a hangup that nobody awaits ends the process.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	a.stops.add("hangups", func(context.Context) error { signal.Stop(hangup); return nil })
	background("texts", func(ctx context.Context) { watchTexts(ctx, texts, hangup, log.With("part", "notice"), a.registry) })
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
	schooldesk.New(schooldesk.Config{Pool: pool, Recorder: recorder, Intake: intake, Log: log.With("part", "office"), Now: now}).Register(api)
	parents.Register(api)
	a.stops.add("parents", func(context.Context) error { parents.Close(); return nil }) // after their listener
	banks := topup.NewEndpoints(topup.Config{
		Pool: pool, Book: book, TrustedProxies: proxies, Log: log.With("part", "topup"), Metrics: topup.NewMetrics(a.registry), Now: now,
	})
	background("open lines", func(ctx context.Context) {
		every(ctx, openInterval, log, "measure what banks and books differ in", banks.MeasureOpen)
	})
	a.stops.add("banks", func(context.Context) error { banks.Close(); return nil })
	mux.Handle("/pay/", banks.Handler())
	mux.Handle("/api/v1/topup-points", banks.DirectoryHandler())
	mux.Handle(notice.UnsubscribePath, unsubscribe)
	mux.Handle(push.AckPath, pusher)
	mux.Handle("/ussd/http/", dialogue.Handler())
	a.HTTP, err = a.serve("HTTP", config.HTTP.Listen, "http.listen", secured(config.HTTP.PublicURL, mux))
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
