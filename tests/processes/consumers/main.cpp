// Calls the parser as nvinfer does: QUERIES CLASSES WIDTH HEIGHT THRESHOLD…, the tensors on stdin.
#include <cstdio>
#include <cstdlib>

#include "nvdsinfer_custom_impl.h"

extern "C" bool NvDsInferParseRtDetr(std::vector<NvDsInferLayerInfo> const &,
                                     NvDsInferNetworkInfo const &,
                                     NvDsInferParseDetectionParams const &,
                                     std::vector<NvDsInferObjectDetectionInfo> &);

static NvDsInferLayerInfo layer(const char *name, unsigned rows, unsigned columns,
                                std::vector<float> &values) {
  values.resize(rows * columns);
  if (std::fread(values.data(), sizeof(float), values.size(), stdin) != values.size()) std::exit(2);
  NvDsInferLayerInfo info{};
  info.dataType = FLOAT;
  info.inferDims = {2, {rows, columns}, rows * columns};
  info.layerName = name;
  info.buffer = values.data();
  return info;
}

int main(int count, char **words) {
  const unsigned queries = std::atoi(words[1]), classes = std::atoi(words[2]);
  NvDsInferNetworkInfo network{unsigned(std::atoi(words[3])), unsigned(std::atoi(words[4])), 3};
  NvDsInferParseDetectionParams params{};
  for (int i = 5; i < count; ++i) params.perClassPreclusterThreshold.push_back(std::atof(words[i]));
  params.numClassesConfigured = params.perClassPreclusterThreshold.size();
  std::vector<float> logits, boxes;
  std::vector<NvDsInferLayerInfo> layers{layer("pred_logits", queries, classes, logits),
                                         layer("pred_boxes", queries, 4, boxes)};
  std::vector<NvDsInferObjectDetectionInfo> objects;
  if (!NvDsInferParseRtDetr(layers, network, params, objects)) return 1;
  for (const auto &one : objects)
    std::printf("%u %.9g %.9g %.9g %.9g %.9g\n", one.classId, one.detectionConfidence, one.left,
                one.top, one.left + one.width, one.top + one.height);
}
