package interop_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The Majordomo peers in JavaScript are what the RFCs say, each by the scripts
// of the conformance kit: else the matrix would prove little.
func TestPeersConform(t *testing.T) {
	needPeers(t)
	kit := filepath.Join(t.TempDir(), "conformance")
	if out, err := exec.Command("go", "build", "-o", kit, "../conformance/cmd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, dialect := range []string{"mdp02", "mdp01"} {
		for role, args := range map[string][]string{
			"broker": nil,
			"worker": {"-role", "worker", "-command", "node js/" + dialect + "-worker.js --endpoint {endpoint} --service {service} --heartbeat 300"},
			"client": {"-role", "client", "-command", "node js/" + dialect + "-client.js --endpoint {endpoint} --service {service} --data {data} --timeout {timeout}"},
		} {
			t.Run(dialect+"-"+role, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				if role == "broker" {
					b := start(t, "broker", []string{"node", filepath.Join("js", dialect+"-broker.js"), "--endpoint", "tcp://127.0.0.1:*", "--heartbeat", "300"})
					args = []string{"-endpoint", b.want("ready")}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
				defer cancel()
				args = append(args, "-dialect", dialect, "-heartbeat", "300ms", "-patience", "10s")
				out, err := exec.CommandContext(ctx, kit, args...).CombinedOutput()
				text := string(out)
				if err != nil || !strings.Contains(text, " 0 failed of what has to be, 0 of what should or may be") {
					t.Errorf("%v\n%s", err, text)
				}
			})
		}
	}
}
