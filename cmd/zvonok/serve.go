package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

type serveCommand struct {
	ReadyFile string `type:"path" help:"Write the addresses here, as JSON, once everything listens." placeholder:"FILE"`
}

func (s *serveCommand) Run(ctx context.Context, c *console) error {
	config, err := c.settings()
	if err != nil {
		return err
	}
	log := c.logger(config.Log)
	app, err := StartApp(ctx, config, log)
	if err != nil {
		return err
	}
	if s.ReadyFile != "" {
		ready := readyFile{PID: os.Getpid(), HTTP: app.HTTP, Admin: app.Admin, SMPP: app.SMPP, Database: app.url}
		if err := ready.write(s.ReadyFile); err != nil {
			return errors.Join(err, drain(app.Stop))
		}
	}
	<-ctx.Done()
	log.Info("draining")
	return drain(app.Stop)
}

// drain stops within the drain time; a second signal exits at once.
func drain(stop func(context.Context) error) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	go func() {
		if _, open := <-again; open {
			fmt.Fprintln(os.Stderr, "zvonok: second signal, exiting at once")
			os.Exit(exitFailed)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return stop(ctx)
}
