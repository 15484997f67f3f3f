// The output of an RT-DETR for DeepStream's nvinfer, as rtdetr-slurm exports it:
//
//   g++ -O2 -shared -fPIC -I/opt/nvidia/deepstream/deepstream/sources/includes
//       -I/usr/local/cuda/include nvdsinfer_rtdetr.cpp -o libnvdsinfer_rtdetr.so
//
// Every pair of a query and a class counts, class 0 and equal scores too; nvinfer keeps the best
// `topk` of each class, and scales the boxes from the network's input to the frame.
#include <cmath>
#include <cstring>
#include <vector>

#include "nvdsinfer_custom_impl.h"

extern "C" bool NvDsInferParseRtDetr(std::vector<NvDsInferLayerInfo> const &layers,
                                     NvDsInferNetworkInfo const &network,
                                     NvDsInferParseDetectionParams const &params,
                                     std::vector<NvDsInferObjectDetectionInfo> &objects) {
  const NvDsInferLayerInfo *logits = nullptr, *boxes = nullptr;
  for (const auto &layer : layers) {
    if (!std::strcmp(layer.layerName, "pred_logits")) logits = &layer;
    if (!std::strcmp(layer.layerName, "pred_boxes")) boxes = &layer;
  }
  if (!logits || !boxes || logits->dataType != FLOAT || boxes->dataType != FLOAT) return false;
  const unsigned queries = logits->inferDims.d[0], classes = logits->inferDims.d[1];
  if (classes != params.perClassPreclusterThreshold.size()) return false;
  const float *logit = static_cast<const float *>(logits->buffer);
  const float *box = static_cast<const float *>(boxes->buffer);  // centre x, y, width, height in 0..1
  for (unsigned query = 0; query < queries; ++query, box += 4)
    for (unsigned label = 0; label < classes; ++label, ++logit) {
      const float score = 1.0f / (1.0f + std::exp(-*logit));
      if (score < params.perClassPreclusterThreshold[label]) continue;
      NvDsInferObjectDetectionInfo object{};
      object.classId = label;
      object.detectionConfidence = score;
      object.left = (box[0] - box[2] / 2) * network.width;
      object.top = (box[1] - box[3] / 2) * network.height;
      object.width = box[2] * network.width;
      object.height = box[3] * network.height;
      objects.push_back(object);
    }
  return true;
}

CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseRtDetr);
