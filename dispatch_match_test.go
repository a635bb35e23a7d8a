package omdp

import (
	"strings"
	"testing"
)

// TestRehome: what waits for a name goes to whoever serves it, also when that
// changes while it waits.
func TestRehome(t *testing.T) {
	const own = "w> W|1|sx|{\"v\":1,\"id\":\"w\",\"hb\":2500}\n"
	const any = "pigato:p> W|1|s*\n"
	const asks = "a> C|2|sx|r1|1|{}\na> C|2|sx|r2|2|{\"failFast\":true}\n"
	for name, c := range map[string]struct{ before, event, want string }{
		"its workers leave, a pattern serves it":   {own + asks + any, "w> W|5", "pigato:p< W|2|T2|sx||r2|2|"},
		"the pattern's leave, one of its own came": {any + asks, "pigato:p> W|5\n" + own, "a< C|3|r2|{\"status\":\"NO_WORKER\",\"executed\":false}"},
		"a pattern comes":                          {"a> C|2|sx|r1|1|{}\n", any, "pigato:p< W|2|T1|sx||r1|1|"},
		"a better pattern comes and the other goes": {any + "a> C|2|sxy|r1|1|{}\na> C|2|sxy|r2|2|{}\npigato:q> W|1|sx*\n", "pigato:p> W|5",
			"pigato:q< W|2|T2|sxy||r2|2|"},
		"one of its own comes after all have gone": {any + "a> C|2|sx|r1|1|{}\na> C|2|sx|r2|2|{}\npigato:p> W|5\n", own, "w< W|2|T2|r2|2|"},
		"a newer version's leave":                  {"pigato:p> W|1|t@1.2.0\na> C|2|t@1.x|r1|1|{}\na> C|2|t@1.x|r2|2|{}\npigato:q> W|1|t@1.1.0\n", "pigato:p> W|5", "pigato:q< W|2|T2|t@1.x||r2|2|"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestScript(t, nil)
			s.do(c.before)
			got := strings.Join(s.do(c.event), "\n")
			if !strings.Contains(got, c.want) {
				t.Errorf("got\n%s\nwant %s", got, c.want)
			}
			if err := s.d.check(); err != nil {
				t.Error(err)
			}
		})
	}
}
