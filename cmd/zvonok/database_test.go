package main

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// A command that comes while the gateway whose private PostgreSQL it would use
// drains, or has just been killed, waits for its end and starts it itself.
func TestACommandWorksWhateverTheGatewayBesideItIsDoing(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"it drains": syscall.SIGTERM, "it is killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataFolder(t)
			settings := "data_dir = 'var'\n[http]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n[smpp]\nlisten = '127.0.0.1:0'\n"
			if err := os.WriteFile(filepath.Join(dir, "zvonok.toml"), []byte(settings), 0o600); err != nil {
				t.Fatal(err)
			}
			gateway := start(t, dir, "serve")
			if _, stderr, code := command(t, dir, "key", "list"); code != exitDone {
				t.Fatalf("beside the running gateway: exit %d: %s", code, stderr)
			}
			var commands sync.WaitGroup
			for range 3 { // so that some come at every moment of its end
				commands.Go(func() {
					for last := false; ; {
						if _, stderr, code := command(t, dir, "key", "list"); code != exitDone {
							t.Errorf("exit %d: %s", code, stderr)
						}
						select {
						case <-gateway.exited:
							if last {
								return
							}
							last = true
						default:
						}
					}
				})
			}
			_ = gateway.command.Process.Signal(signal)
			commands.Wait()
		})
	}
}
