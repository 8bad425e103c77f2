package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"zvonok/gateway/smpp"
)

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
