// Finds the programs of src/tutorial.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

/// Returns the path of a program of src/tutorial. Looks in the directory that the environment
/// variable TUTORIAL names. Without it, looks where the build has put the programs, and near the
/// program that ECHOD names. Throws std::runtime_error if it is in none of these places.
inline std::string tutorial_program(const std::string& name) {
  const char* const named = std::getenv("TUTORIAL");
  const char* const echod = std::getenv("ECHOD");
  const std::string program = echod != nullptr ? echod : "";
  const std::string near_echod = program.substr(0, program.rfind('/') + 1);
  for (const std::string& directory :
       {named != nullptr ? std::string(named) : std::string(TUTORIAL_PATH), near_echod + "tutorial",
        near_echod + "."}) {
    std::string path = directory;
    path.append("/").append(name);
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  throw std::runtime_error("cannot find " + name + ": set TUTORIAL to its directory");
}
