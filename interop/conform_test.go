package interop_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The Majordomo peers in JavaScript are what the RFCs say, each by the scripts
// of the conformance kit: else the matrix would prove little. What only should be
// is not asked for; and since much there is a matter of time, which a busy machine
// does not keep, one good run of three is enough.
func TestPeersConform(t *testing.T) {
	needPeers(t)
	kit := filepath.Join(t.TempDir(), "conformance")
	if out, err := exec.Command("go", "build", "-o", kit, "../conformance/cmd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, dialect := range []string{"mdp02", "mdp01"} {
		for role, args := range map[string][]string{
			"broker": nil,
			"worker": {"-role", "worker", "-command", "node js/" + dialect + "-worker.js --endpoint {endpoint} --service {service} --heartbeat 500"},
			"client": {"-role", "client", "-command", "node js/" + dialect + "-client.js --endpoint {endpoint} --service {service} --data {data} --timeout {timeout}"},
		} {
			t.Run(dialect+"-"+role, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				if role == "broker" {
					b := start(t, "broker", []string{"node", filepath.Join("js", dialect+"-broker.js"), "--endpoint", "tcp://127.0.0.1:*", "--heartbeat", "500"})
					args = []string{"-endpoint", b.want("ready")}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 6*limit)
				defer cancel()
				args = append(args, "-dialect", dialect, "-heartbeat", "500ms", "-patience", "10s")
				var text string
				for range 3 {
					out, err := exec.CommandContext(ctx, kit, args...).CombinedOutput()
					text = string(out)
					if err == nil && strings.Contains(text, " 0 failed of what has to be") {
						return
					}
				}
				t.Error(text)
			})
		}
	}
}
