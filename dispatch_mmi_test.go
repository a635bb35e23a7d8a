package omdp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLongNameInData: data that is to be a name is not looked at if it can't be
// one: a range of versions a frame long would hold the broker up for seconds.
func TestLongNameInData(t *testing.T) {
	s := newScript(t)
	for n := range 20 {
		s.sendFrames(fmt.Sprint("pigato:w", n), []string{"W", "1", fmt.Sprint("calc@1.0.", n)})
	}
	s.flush()
	s.out.Reset()
	long := "calc@" + strings.Repeat("2||", 1<<20) + "1"
	begin := time.Now()
	s.sendFrames("pigato:c", []string{"C", "2", "mmi.service", "r1", long, "{}"})
	s.sendFrames("pigato:c", []string{"C", "2", "$dir", "r2", long, "{}"})
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	s.flush()
	if got, want := s.out.String(), "    pigato:c< C|3||r1|0|404|{}\n    pigato:c< C|3||r2|0|[]|{}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestMMITooLarge: an answer that is more than a client takes would cost it its connection.
func TestMMITooLarge(t *testing.T) {
	s := newTestScript(t, nil)
	for i := range 200 {
		s.do(fmt.Sprintf("mdp02:w%d> MDPW02|\\x01|service-%d", i, i))
	}
	s.do(`a> C|8|{"v":1,"id":"a","hb":2500,"body":1000}`)
	s.expect(`a> C|2|mmi.services|r1|null|{}`, `a< C|3|r1|{"status":"TOO_LARGE","executed":false}`)
	s.expect(`a> C|2|mmi.service|r2|"service-7"|{}`, `a< C|3|r2|{"status":200,"msg":200}`)
}
