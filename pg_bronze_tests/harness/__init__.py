"""What tests and benchmarks share: servers, lakes to compare, faults to inject. Contains no tests."""
