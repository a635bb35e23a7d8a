package omdp_test

type namedCase struct{ name string }

func workerCases() []namedCase { return nil }
func clientCases() []namedCase { return nil }
func wireCases() []namedCase   { return nil }
