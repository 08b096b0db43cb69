// oracle_engine DIR < scripts: runs them on our engine and prints what it answered, as the guest's agent does.
#include <cstdio>
#include <iostream>

#include "base/log.h"
#include "tests/oracle/engine_machine.h"
#include "tests/oracle/root.h"
#include "tests/oracle/script.h"
#include "tests/oracle/session.h"

int main(int argc, char** argv) {
  using namespace hydrant::oracle;
  if (argc != 2) return std::fputs("usage: oracle_engine DIR < scripts\n", stderr), 2;
  for (auto& script : read_scripts(std::cin)) {
    empty_root(argv[1]);
    std::cout << "= " << script.name << "\n";
    EngineMachine machine(argv[1]);
    Session session(machine);
    for (auto& step : script.steps) std::cout << step << " => " << session.run(step) << std::endl;
  }
}
