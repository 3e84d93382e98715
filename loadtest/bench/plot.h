// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace mcs::loadtest {

// Lines over a logarithmic x axis and a linear y axis that begins at 0, as an SVG picture that needs
// no font or script.
struct Plot {
  struct Line {
    std::string name;
    std::vector<std::pair<double, double>> points;  // x > 0, y >= 0; by rising x
  };
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<double> x_ticks;  // by rising x; empty: the powers of ten
  std::vector<Line> lines;

  std::string svg() const;
};

}  // namespace mcs::loadtest
